"""How an output is cut into segments: where the encoder works, and where the source's own groups of pictures are copied."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestrator.media.encoding import MAX_TAIL_FRAMES, MIN_SEGMENT_FRAMES
from orchestrator.media.gops import Gop


@dataclass(frozen=True, slots=True)
class Part:
    """The frames of one segment."""

    first: int
    """Its first frame in the output."""
    frame_count: int
    source_pts: int | None = None
    """Time stamp of the source's first packet, where packets are copied; None where pictures are encoded."""

    @property
    def stop(self) -> int:
        """The frame behind its last."""
        return self.first + self.frame_count


def parts_of(frame_count: int, segment_frames: int, copies: Sequence[Part] = (), opening_frames: int | None = None) -> list[Part]:
    """Cut an output into segments of `segment_frames`, but for what is copied. A handful of frames at an end joins the segment before.

    `opening_frames` is how long the output's first segment is, if it is encoded; None for no shorter than the others.
    """
    opening = segment_frames if opening_frames is None else min(opening_frames, segment_frames)
    parts: list[Part] = []
    for copy in copies:
        parts += [*_encoded(parts[-1].stop if parts else 0, copy.first, segment_frames, opening), copy]
    return [*parts, *_encoded(parts[-1].stop if parts else 0, frame_count, segment_frames, opening)]


def _encoded(first: int, stop: int, segment_frames: int, opening_frames: int) -> Iterator[Part]:
    while first < stop:
        wanted = segment_frames if first else opening_frames
        count = wanted if stop - first - wanted > MAX_TAIL_FRAMES else stop - first
        yield Part(first, count)
        first += count


def copies_in(source: NDArray[np.int64], is_untouched: NDArray[np.bool_], gops: Iterable[Gop], segment_frames: int) -> list[Part]:
    """Return which frames of an output can be copied, in order, as parts of about a segment's length and more.

    Args:
        source: (N,) the source frame that each frame of the output shows.
        is_untouched: (N,) whether it is shown as it is, for sure.
        gops: the source's closed groups.
        segment_frames: length from which on neighbouring groups become a part of their own.
    """
    found: list[tuple[int, Gop]] = []
    for gop in gops:
        frames = np.arange(gop.first, gop.first + gop.frame_count)
        for first in np.flatnonzero(source == gop.first).tolist():
            here = slice(first, first + gop.frame_count)
            if np.array_equal(source[here], frames) and is_untouched[here].all():
                found.append((first, gop))
    parts: list[Part] = []
    for run in _runs(sorted(found, key=lambda one: one[0])):
        left = sum(gop.frame_count for _, gop in run)
        if left < MIN_SEGMENT_FRAMES:
            continue
        is_begun = False
        for first, gop in run:
            # What is left of a run must be enough for a part of its own.
            if is_begun and (parts[-1].frame_count < segment_frames or left < MIN_SEGMENT_FRAMES):
                parts[-1] = Part(parts[-1].first, parts[-1].frame_count + gop.frame_count, parts[-1].source_pts)
            else:
                parts.append(Part(first, gop.frame_count, gop.pts))
            is_begun, left = True, left - gop.frame_count
    return parts


def _runs(found: list[tuple[int, Gop]]) -> Iterator[list[tuple[int, Gop]]]:
    """Yield groups that follow each other in the output as they do in the source."""
    run: list[tuple[int, Gop]] = []
    for first, gop in found:
        if run and (run[-1][0] + run[-1][1].frame_count, run[-1][1].first + run[-1][1].frame_count) != (first, gop.first):
            yield run
            run = []
        run.append((first, gop))
    if run:
        yield run
