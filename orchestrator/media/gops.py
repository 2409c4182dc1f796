"""Groups of pictures of a source that can be copied as they are, and the parameter sets that go with them.

Copied and encoded groups have parameter sets of their own, so each brings them along in its first packet (`avc3`, `hev1`: ISO 14496-15),
and every decoder begins anew there.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream
from numpy.typing import NDArray

from orchestrator.media.container import open_media, translate_errors
from orchestrator.media.probe import VideoInfo, video_stream

NAL_LENGTH_BYTES = 4
"""Length of the number before each NAL unit in everything that is put together."""


@dataclass(frozen=True, slots=True)
class Gop:
    """Source frames that refer to no others, and that no others refer to."""

    first: int
    """Its first frame in presentation order."""
    frame_count: int
    pts: int
    """Time stamp of its first packet, ticks of the stream's time base."""


def closed_gops(info: VideoInfo, frame_pts: NDArray[np.int64], tick: Callable[[], None] = lambda: None) -> list[Gop]:
    """Return the closed groups among a source's frames, by its packets alone: nothing is decoded.

    Args:
        info: the source: H.264 or HEVC with its parameter sets in the header, as in MP4, MOV and Matroska.
        frame_pts: (N,) time stamps of the frames, rising, as met while decoding.
        tick: called between any two packets.
    """
    found: list[Gop] = []
    group: list[int | None] = []
    with open_media(info.path) as container:
        stream = video_stream(container, info.stream_index)
        if nal_length_bytes(stream) != NAL_LENGTH_BYTES:
            return []
        for packet in container.demux(stream):
            tick()
            if not packet.size or _begins_group(packet, info.codec):
                found += _gop(group, frame_pts)
                group = []
            if packet.size:
                group.append(packet.pts)
    return found


def _gop(pts: list[int | None], frame_pts: NDArray[np.int64]) -> list[Gop]:
    """Return a group if its packets are just the frames from its first packet's on, and that one is shown first."""
    if not pts or None in pts:
        return []
    times = np.array(pts, np.int64)
    first = int(np.searchsorted(frame_pts, times[0]))
    if not np.array_equal(np.sort(times), frame_pts[first : first + len(times)]) or times.min() != times[0]:
        return []
    return [Gop(first, len(times), int(times[0]))]


class GopReader:
    """Reads the packets of groups, best in the order of the file. A context manager."""

    def __init__(self, info: VideoInfo) -> None:
        self._info = info
        self._opening = open_media(info.path)
        self._container: InputContainer = self._opening.__enter__()
        self.stream: VideoStream = video_stream(self._container, info.stream_index)
        """The stream, as a template for one that takes the packets."""

    def close(self) -> None:
        """Close the file."""
        self._opening.__exit__(None, None, None)

    def packets(self, first_pts: int, count: int) -> "Iterator[Packet[Any]]":
        """Yield `count` packets in decoding order from the one with a time stamp on."""
        with translate_errors(self._info.path):
            self._container.seek(first_pts, stream=self.stream)
            left = 0
            for packet in self._container.demux(self.stream):
                if packet.size and packet.pts == first_pts:
                    left = count
                if left:
                    yield packet
                    left -= 1
                    if not left:
                        return


def nal_length_bytes(stream: VideoStream) -> int:
    """Return the length of the numbers before NAL units, by a stream's header; 0 where it has none of this kind."""
    header = stream.codec_context.extradata or b""
    if len(header) < 7 or header[0] != 1:
        return 0
    return (header[4 if stream.codec_context.name == "h264" else 21] & 3) + 1


def parameter_sets(header: bytes, codec: str) -> bytes:
    """Return the parameter sets of an `avcC` or `hvcC` header (ISO 14496-15), each behind its length, as they stand in a packet."""
    found: list[bytes] = []
    if codec == "h264":
        position = 5
        for mask in (0x1F, 0xFF):  # sequence parameter sets, then picture parameter sets
            count, position = header[position] & mask, position + 1
            for _ in range(count):
                unit, position = _unit(header, position)
                found.append(unit)
        return b"".join(found)
    position = 23
    for _ in range(header[22]):
        count, position = int.from_bytes(header[position + 1 : position + 3], "big"), position + 3
        for _ in range(count):
            unit, position = _unit(header, position)
            found.append(unit)
    return b"".join(found)


def _unit(header: bytes, position: int) -> tuple[bytes, int]:
    length = int.from_bytes(header[position : position + 2], "big")
    stop = position + 2 + length
    return length.to_bytes(NAL_LENGTH_BYTES, "big") + header[position + 2 : stop], stop


def _begins_group(packet: "Packet[Any]", codec: str) -> bool:
    """Tell whether a packet is a picture that decoding begins anew with: IDR. Others that players may start at let later ones refer back."""
    if not packet.is_keyframe:
        return False
    data, position = memoryview(packet), 0
    while position + NAL_LENGTH_BYTES < len(data):
        kind = data[position + NAL_LENGTH_BYTES]
        if codec == "h264" and 1 <= kind & 0x1F <= 5:
            return kind & 0x1F == 5
        if codec == "hevc" and (kind >> 1 & 0x3F) < 32:
            return (kind >> 1 & 0x3F) in (19, 20)
        position += NAL_LENGTH_BYTES + int.from_bytes(data[position : position + NAL_LENGTH_BYTES], "big")
    return False
