"""Fields made into whole pictures by FFmpeg's bwdif, one picture out for each one in."""

from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain

import av
from av.filter import Graph


def deinterlaced(pictures: Iterator[tuple[int, av.VideoFrame]]) -> Iterator[tuple[int, av.VideoFrame]]:
    """Yield numbered pictures with those made of two fields deinterlaced; the others stay as they are, and every one keeps its time stamp.

    A picture depends on the one before and the one behind it. The first and the last have only one neighbour.
    """
    waiting: deque[tuple[int, av.VideoFrame]] = deque()
    graph: Graph | None = None
    kind: tuple[int, int, str] | None = None
    for number, picture in chain(pictures, [(-1, None)]):
        if graph is not None and (picture is None or kind != _kind(picture)):
            graph.push(None)
            yield from _finished(graph, waiting)
            graph = None
        if picture is None:
            return
        if graph is None:
            graph, kind = _graph(picture), _kind(picture)
        waiting.append((number, picture))
        graph.push(picture)
        yield from _finished(graph, waiting)


def _finished(graph: Graph, waiting: "deque[tuple[int, av.VideoFrame]]") -> Iterator[tuple[int, av.VideoFrame]]:
    with suppress(av.BlockingIOError, av.EOFError):
        while True:
            done = graph.pull()
            assert isinstance(done, av.VideoFrame)
            number, source = waiting.popleft()
            done.pts, done.time_base = source.pts, source.time_base
            yield number, done


def _graph(picture: av.VideoFrame) -> Graph:
    graph = Graph()
    source = graph.add_buffer(width=picture.width, height=picture.height, format=picture.format, time_base=picture.time_base)
    bwdif = graph.add("bwdif", "mode=send_frame:parity=auto:deint=interlaced")
    sink = graph.add("buffersink")
    source.link_to(bwdif)
    bwdif.link_to(sink)
    graph.configure()
    return graph


def _kind(picture: av.VideoFrame) -> tuple[int, int, str]:
    return picture.width, picture.height, picture.format.name
