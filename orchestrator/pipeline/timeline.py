"""Which source frame is shown when: exact arithmetic on frame counts and fractions of seconds."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from orchestrator.errors import InvalidOption
from orchestrator.media.clock import OutputClock
from orchestrator.media.times import SourceTimes

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

RateChoice = Literal["source", "keep"] | Fraction
"""The frame rate of an output: the source's (a variable one is made constant), every frame's own time, or so many frames a second."""

_TICKS_HZ = 90_000
"""Ticks of an output that keeps its source's times, where the source's own are no whole part of a second or too fine for MP4."""

_COARSEST_TICKS_HZ, _FINEST_TICKS_HZ = 1000, 1_000_000


@dataclass(frozen=True, slots=True)
class Timeline:
    """The frames of an output."""

    source: NDArray[np.int64]
    """(N,) the source frame that each shows."""
    clock: OutputClock
    speech_frames: int
    """How many of them, from the first on, belong to the speech; what lies behind is the source's own, and silent."""
    sound_s: Fraction | None
    """How long the sound has to be made, s; None where the speech ends with the pictures, to half a frame, as it is."""
    incoming: NDArray[np.int64]
    """(N,) the source frame that is faded in over it at the seam of a loop, -1 for none."""
    incoming_weight: NDArray[np.float32]
    """(N,) its share, 0..1."""
    round_s: Fraction | None = None
    """After how long a loop begins again, s; None where nothing does."""

    @property
    def frame_count(self) -> int:
        """How many frames the output has."""
        return len(self.source)

    @property
    def duration_s(self) -> Fraction:
        """How long the output lasts, s."""
        return self.clock.time_s(self.frame_count)

    def digest(self) -> str:
        """Return a hash of everything in here."""
        starts = np.empty(0, np.int64) if self.clock.starts is None else self.clock.starts
        content = hashlib.sha256(f"{self.clock.frame_rate} {self.clock.time_base} {self.speech_frames} {self.sound_s} {self.round_s}".encode())
        for array in (self.source, self.incoming, self.incoming_weight, starts):
            content.update(np.ascontiguousarray(array).tobytes())
        return content.hexdigest()


@dataclass(frozen=True, slots=True)
class Stretch:
    """A part of an output, and the part of the source that it shows."""

    from_s: Fraction
    source_s: Fraction
    """Where that begins, and how long it is, s of the source."""
    lasts_s: Fraction
    """How long it is in the output, s."""
    mode: SyncMode | None = None
    """How the one is made as long as the other; None where they are equally long."""


def total_s(stretches: Sequence[Stretch]) -> Fraction:
    """Return how long an output of them lasts, s."""
    return sum((stretch.lasts_s for stretch in stretches), Fraction(0))


def lasting_s(mode: SyncMode, video_s: Fraction, speech_s: Fraction) -> Fraction:
    """Return how long video and speech last together, s."""
    if mode == "cut_off":
        return min(video_s, speech_s)
    return max(video_s, speech_s) if mode == "silence" else speech_s


def speech_frame_count(speech_duration_s: Fraction, frame_rate: Fraction) -> int:
    """Return how many frames a speech takes, at least one."""
    return max(1, round(speech_duration_s * frame_rate))


def shows_whole_source(mode: SyncMode) -> bool:
    """Tell whether a mode shows every source frame, however short the speech."""
    return mode in ("silence", "remap")


def lay_out(
    mode: SyncMode,
    choice: RateChoice,
    times: SourceTimes,
    speech_s: Fraction,
    is_whole: bool,
    loop_crossfade_s: Fraction = Fraction(0),
    stretches: Sequence[Stretch] = (),
) -> Timeline:
    """Lay out an output. A source of constant rate has no times to keep but its rate. Where any of its `stretches` has a mode of its own, they say
    what is shown. See `constant_timeline`, `kept_timeline` and `stretched_timeline`.
    """
    if choice == "keep" and not times.is_constant:
        return kept_timeline(mode, times, speech_s, is_whole, loop_crossfade_s)
    rate = choice if isinstance(choice, Fraction) else times.frame_rate
    if any(stretch.mode for stretch in stretches):
        return stretched_timeline(times, rate, stretches)
    return constant_timeline(mode, times, rate, speech_s, is_whole, loop_crossfade_s)


def constant_timeline(
    mode: SyncMode, times: SourceTimes, frame_rate: Fraction, speech_s: Fraction, is_whole: bool, loop_crossfade_s: Fraction
) -> Timeline:
    """Lay out an output of constant rate.

    Args:
        mode: see `SyncMode`.
        times: of the source's frames: all of them, or those that begin before the speech ends.
        frame_rate: of the output, Hz. A source of this constant rate is shown frame by frame; any other is shown by what is on screen in the
            middle of each output frame, so that no frame comes more than half an output frame early or late, with `remap` as without.
        speech_s: how long the speech is, s.
        is_whole: whether the source has no further frame.
        loop_crossfade_s: how long the end fades into the beginning where a loop begins again, s.

    Raises:
        InvalidOption: the cross-fade takes more than half of the source.
    """
    shown = at_rate(times, frame_rate, None if is_whole else speech_s)
    speech_frames = speech_frame_count(speech_s, frame_rate)
    fade = round(loop_crossfade_s * frame_rate)
    if mode != "loop" or speech_frames <= len(shown):
        source = stretched(times, speech_frames) if mode == "remap" else shown[frame_order(mode, len(shown), speech_frames)]
        sound_s = None if len(source) == speech_frames else len(source) / frame_rate
        nothing = np.full(len(source), -1, np.int64)
        return Timeline(source, OutputClock.constant(frame_rate), speech_frames, sound_s, nothing, np.zeros(len(source), np.float32))
    _check_fade(fade / frame_rate, len(shown) / frame_rate, loop_crossfade_s)
    period = len(shown) - fade
    place = np.arange(speech_frames) % period
    fades = (np.arange(speech_frames) >= period) & (place < fade)
    weight = np.where(fades, (place + 1) / (fade + 1), 0)
    source, incoming = shown[np.where(fades, place + period, place)], np.where(fades, shown[place], -1)
    return Timeline(source, OutputClock.constant(frame_rate), speech_frames, None, incoming, weight.astype(np.float32), period / frame_rate)


def kept_timeline(mode: SyncMode, times: SourceTimes, speech_s: Fraction, is_whole: bool, loop_crossfade_s: Fraction = Fraction(0)) -> Timeline:
    """Lay out an output whose frames are shown as long as in the source, which goes for frames shown a second time too.

    A frame belongs to the speech when at least half of it does. With `remap` every frame is shown once, and all are stretched alike. A last frame
    that is held is shown again and again at the source's usual rate, since the mouth moves on it.

    Where a loop fades, it begins again with the frame nearest to so long before its end, so that no frame is shown for a part of its time: the
    beginning's frames come at their own times, and what the end would show in the middle of each lies under it.

    Raises:
        InvalidOption: the cross-fade takes more than half of the source.
    """
    interval = max(1, round(1 / times.frame_rate / times.tick_s))
    end = int(times.ticks[-1]) + interval
    if not is_whole:
        end = max(end, round(speech_s / times.tick_s))
    edges = np.append(times.ticks, end)
    lengths = np.diff(edges)
    speech = speech_s / times.tick_s
    count = len(lengths)
    begins_again = mode == "loop" and speech > end
    round_count = int(np.abs(edges - float(end - loop_crossfade_s / times.tick_s)).argmin()) if begins_again else count
    fade = end - int(edges[round_count])
    _check_fade(fade * times.tick_s, end * times.tick_s, loop_crossfade_s)
    if mode == "remap":
        order, starts = np.arange(count), edges * float(speech / end)
    else:
        if mode in ("bounce", "loop"):
            period = max(1, 2 * count - 2) if mode == "bounce" else round_count
            once = int(lengths[frame_order(mode, round_count, period)].sum())
            order = frame_order(mode, round_count, period * (int(speech // once) + 1))
        elif mode == "cut_off":
            order = np.arange(count)
        else:
            order = frame_order(mode, count, count + max(0, round((speech - end) / interval)))
        shown = lengths[order]
        if mode == "silence":
            shown[count:] = interval
        starts = np.concatenate([[0], np.cumsum(shown)])
    belongs = (starts[:-1] + starts[1:]) / 2 <= float(speech)
    speech_frames = max(1, int(belongs.sum()))
    if not shows_whole_source(mode):
        order, starts = order[:speech_frames], starts[: speech_frames + 1]
    time_base = _time_base(times)
    ticks = np.round(starts * float(times.tick_s / time_base)).astype(np.int64)
    counted = np.arange(len(ticks))
    ticks = np.maximum.accumulate(ticks - counted) + counted  # a frame lasts a tick at least
    clock = OutputClock(times.frame_rate, time_base, ticks)
    ends_with_speech = speech_frames == len(order) and starts[-1] + (starts[-1] - starts[-2]) / 2 >= float(speech)
    sound_s = None if ends_with_speech else clock.time_s(len(order))
    middles = edges[order] + lengths[order] / 2
    fades = (np.arange(len(order)) >= round_count) & (middles < fade)
    leaving = np.searchsorted(edges, edges[round_count] + middles, side="right") - 1
    source, incoming = np.where(fades, leaving, order), np.where(fades, order, -1)
    weight = np.where(fades, middles / max(fade, 1), 0)
    round_s = int(edges[round_count]) * times.tick_s if begins_again else None
    return Timeline(source, clock, speech_frames, sound_s, incoming, weight.astype(np.float32), round_s)


def stretched_timeline(times: SourceTimes, frame_rate: Fraction, stretches: Sequence[Stretch]) -> Timeline:
    """Lay out an output of constant rate in which each part of the source lasts as long as it is told to.

    Args:
        times: of all the source's frames.
        frame_rate: of the output, Hz.
        stretches: the whole output, in order. An output frame belongs to the one in which its middle lies.
    """
    shown, count, begins_s = list[NDArray[np.int64]](), 0, Fraction(0)
    for stretch in stretches:
        into_s = (count + Fraction(1, 2)) / frame_rate - begins_s
        begins_s += stretch.lasts_s
        stop = max(1, math.ceil(begins_s * frame_rate - Fraction(1, 2)))
        if stretch.mode is None or stretch.mode == "remap":
            pace = stretch.source_s / stretch.lasts_s
            shown.append(_on_screen(times, stretch.from_s + into_s * pace, pace / frame_rate, stop - count))
        else:
            once = _on_screen(times, stretch.from_s + into_s, 1 / frame_rate, max(1, math.ceil((stretch.source_s - into_s) * frame_rate)))
            order = "silence" if stretch.mode == "cut_off" else stretch.mode  # as long as it lasts, the shorter is at its end
            shown.append(once[frame_order(order, len(once), max(1, stop - count))[: stop - count]])
        count = stop
    source = np.concatenate(shown)
    nothing = np.full(count, -1, np.int64)
    return Timeline(source, OutputClock.constant(frame_rate), count, count / frame_rate, nothing, np.zeros(count, np.float32))


def _on_screen(times: SourceTimes, first_s: Fraction, step_s: Fraction, count: int) -> NDArray[np.int64]:
    """Return the source frame on screen at each of `count` times that are `step_s` apart, (count,)."""
    unit_s = 1 / times.frame_rate if times.is_constant else times.tick_s
    first, step = first_s / unit_s, step_s / unit_s
    # In whole numbers of any size: those of a clock of samples and one of frames outgrow 64 bits.
    shared = math.lcm(first.denominator, step.denominator)
    places = (int(first * shared) + int(step * shared) * np.arange(count, dtype=object)) // shared
    places = places.astype(np.int64)
    shown = places if times.is_constant else np.searchsorted(times.ticks, places, side="right") - 1
    return np.clip(shown, 0, len(times) - 1).astype(np.int64)


def at_rate(times: SourceTimes, frame_rate: Fraction, lasts_until_s: Fraction | None = None) -> NDArray[np.int64]:
    """Return the source frame on screen in the middle of each frame of a constant rate, (M,).

    Args:
        times: of the source's frames.
        frame_rate: Hz.
        lasts_until_s: until when the last one is on screen at least, s; None where it is the source's last.
    """
    if times.is_constant and times.frame_rate == frame_rate:
        return np.arange(len(times))
    duration_s = max(times.duration_s, lasts_until_s or Fraction(0))
    return _on_screen(times, 1 / (2 * frame_rate), 1 / frame_rate, speech_frame_count(duration_s, frame_rate))


def stretched(times: SourceTimes, count: int) -> NDArray[np.int64]:
    """Return the source frame on screen in the middle of each of the `count` frames that the whole source is spread over evenly, (count,)."""
    end_s = times.duration_s if times.is_constant else round(times.duration_s / times.tick_s) * times.tick_s
    return _on_screen(times, end_s / (2 * count), end_s / count, count)


def frame_order(mode: SyncMode, source_count: int, speech_frames: int) -> NDArray[np.int64]:
    """Return which of `source_count` frames each frame of an output shows, (N,)."""
    if source_count < 1 or speech_frames < 1:
        raise ValueError(f"expected at least one source and one speech frame, got {source_count} and {speech_frames}")
    if mode == "cut_off":
        return np.arange(min(source_count, speech_frames))
    if mode == "silence":
        return np.minimum(np.arange(max(source_count, speech_frames)), source_count - 1)
    places = np.arange(speech_frames)
    if mode == "remap":
        return (2 * places + 1) * source_count // (2 * speech_frames)
    if mode == "loop":
        return places % source_count
    # Back and forth without showing an end frame twice.
    period = max(1, 2 * source_count - 2)
    places = places % period
    return np.minimum(places, period - places)


def _check_fade(fade_s: Fraction, video_s: Fraction, asked_s: Fraction) -> None:
    if 2 * fade_s > video_s:
        raise InvalidOption(f"loop_crossfade is {float(asked_s):g} s and the video lasts {float(video_s):.2f} s; give at most half of that.")


def _time_base(times: SourceTimes) -> Fraction:
    """Return the ticks of an output that keeps a source's times."""
    own = times.tick_s * 64
    fits = own.numerator == 1 and _COARSEST_TICKS_HZ <= own.denominator <= _FINEST_TICKS_HZ
    return own if fits else Fraction(1, _TICKS_HZ)
