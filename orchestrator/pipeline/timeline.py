"""Which source frame is shown when: exact arithmetic on frame counts and fractions of seconds."""

from collections.abc import Iterable, Iterator
from fractions import Fraction

from orchestrator.media.reader import Run


def output_frame_count(audio_duration_s: Fraction, frame_rate: Fraction) -> int:
    """Return how many frames an output of the audio's length has, at least one."""
    return max(1, round(audio_duration_s * frame_rate))


def bounce_runs(source_count: int, output_count: int) -> Iterator[Run]:
    """Yield the source frames of an output: forwards, backwards, forwards, ... without showing an end frame twice.

    A source longer than the output is cut; a source of one frame is held.
    """
    if source_count < 1 or output_count < 1:
        raise ValueError(f"expected at least one source and one output frame, got {source_count} and {output_count}")
    if source_count == 1:
        yield Run(0, 0, output_count)
        return
    count = min(source_count, output_count)
    yield Run(0, 1, count)
    left = output_count - count
    forwards = False
    while left > 0:
        count = min(source_count - 1, left)
        yield Run(1, 1, count) if forwards else Run(source_count - 2, -1, count)
        left -= count
        forwards = not forwards


def runs_from(runs: Iterable[Run], first: int) -> Iterator[Run]:
    """Yield what follows the first `first` frames of runs."""
    for run in runs:
        if first < run.count:
            yield Run(run.start + run.step * first, run.step, run.count - first)
        first = max(0, first - run.count)
