"""Which source frame is shown when: exact arithmetic on frame counts and fractions of seconds."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from orchestrator.media.reader import Run

SyncMode = Literal["bounce", "loop", "cut_off", "silence", "remap"]
"""What happens where video and speech differ in length, by sync.so's names.

| mode | speech longer | video longer | output lasts as long as |
|---|---|---|---|
| bounce | the video goes back and forth | the video is cut | the speech |
| loop | the video begins again | the video is cut | the speech |
| cut_off | the speech is cut | the video is cut | the shorter |
| silence | the last frame is held | the rest of the video stays as it is, silent | the longer |
| remap | the video is slowed down | the video is sped up | the speech |
"""

SYNC_MODES: tuple[SyncMode, ...] = get_args(SyncMode)

ALL_FRAMES = 1 << 40
"""More frames than any video has."""


def speech_frame_count(speech_duration_s: Fraction, frame_rate: Fraction) -> int:
    """Return how many frames a speech takes, at least one."""
    return max(1, round(speech_duration_s * frame_rate))


def source_frames_needed(mode: SyncMode, speech_frames: int) -> int:
    """Return how many of the source's frames, from its start, may be shown: `ALL_FRAMES` where that depends on how many there are."""
    return ALL_FRAMES if mode in ("silence", "remap") else speech_frames


@dataclass(frozen=True, slots=True)
class Timeline:
    """The frames of an output."""

    frame_count: int
    runs: tuple[Run, ...]
    """The source frames, one run behind the other."""

    def source_frames(self) -> NDArray[np.int64]:
        """Return the (frame_count,) source frame of each frame."""
        return np.array([run[place] for run in self.runs for place in range(run.count)], np.int64)


def timeline(mode: SyncMode, source_count: int, speech_frames: int) -> Timeline:
    """Lay out an output.

    Args:
        mode: see `SyncMode`.
        source_count: frames of the source, as many as `source_frames_needed` asks for or as there are.
        speech_frames: frames the speech takes.
    """
    if source_count < 1 or speech_frames < 1:
        raise ValueError(f"expected at least one source and one speech frame, got {source_count} and {speech_frames}")
    if mode == "cut_off":
        count = min(source_count, speech_frames)
        return Timeline(count, (Run(0, 1, count),))
    if mode == "silence":
        held = max(0, speech_frames - source_count)
        return Timeline(source_count + held, (Run(0, 1, source_count), *([Run(source_count - 1, 0, held)] if held else ())))
    if mode == "remap":
        step = Fraction(source_count, speech_frames)
        return Timeline(speech_frames, (Run(step / 2, step, speech_frames),))
    runs = _looped(source_count, speech_frames) if mode == "loop" else _bounced(source_count, speech_frames)
    return Timeline(speech_frames, tuple(runs))


def runs_from(runs: Iterable[Run], first: int) -> Iterator[Run]:
    """Yield what follows the first `first` frames of runs."""
    for run in runs:
        if first < run.count:
            yield Run(run.start + run.step * first, run.step, run.count - first)
        first = max(0, first - run.count)


def _looped(source_count: int, count: int) -> Iterator[Run]:
    for first in range(0, count, source_count):
        yield Run(0, 1, min(source_count, count - first))


def _bounced(source_count: int, count: int) -> Iterator[Run]:
    """Yield forwards, backwards, forwards, ... without showing an end frame twice; a source of one frame is held."""
    if source_count == 1:
        yield Run(0, 0, count)
        return
    yield Run(0, 1, min(source_count, count))
    left = count - min(source_count, count)
    forwards = False
    while left > 0:
        part = min(source_count - 1, left)
        yield Run(1, 1, part) if forwards else Run(source_count - 2, -1, part)
        left -= part
        forwards = not forwards
