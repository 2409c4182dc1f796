"""Speech for parts of a video alone: what is said from when to when, and by whom. Everything else stays as it is, its own sound included."""

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from orchestrator.errors import InvalidOption
from orchestrator.media.audio import AudioInfo, Passage
from orchestrator.media.times import exact_s
from orchestrator.pipeline.speakers import from_json
from orchestrator.pipeline.timeline import Stretch, SyncMode, Timeline, lasting_s

FADE_S = 0.1
"""How long a mouth takes from the source's own to what is said in a segment, and back, s."""

MOST_SEGMENTS = 1000

HEADERS_ERR_BY = Fraction(11, 10)
"""How much longer than its header says, and by a second more, a video may be."""

Seconds = Annotated[float, Field(ge=0, le=1_000_000, allow_inf_nan=False)]


class Segment(BaseModel):
    """A part of the video in which somebody speaks."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    start: Seconds
    """When it begins, s of the video."""
    end: Seconds
    """And ends, s."""
    audio: int = Field(1, ge=1, le=16)
    """What is said: 1 is the first track."""
    audio_start: Seconds = 0.0
    """Where in it this begins, s."""
    audio_end: Seconds | None = None
    """And ends, s; None takes what there is."""
    sync_mode: SyncMode | None = None
    """How the part of the video becomes as long as what is said; None: it stays as it is, longer speech is cut, and behind shorter speech the
    mouth is at rest."""


def _in_order(segments: tuple[Segment, ...]) -> tuple[Segment, ...]:
    if not segments:
        raise ValueError("must have at least one segment")
    if len(segments) > MOST_SEGMENTS:
        raise ValueError(f"has {len(segments)} segments; at most {MOST_SEGMENTS} are taken")
    for number, segment in enumerate(segments, 1):
        if segment.start >= segment.end:
            raise ValueError(f"has a segment without length, number {number}; its end has to come behind its start")
        if segment.audio_end is not None and segment.audio_start >= segment.audio_end:
            raise ValueError(f"takes nothing of the audio for segment {number}; audio_end has to come behind audio_start")
    return tuple(sorted(segments, key=lambda segment: segment.start))


Segments = Annotated[tuple[Segment, ...], BeforeValidator(from_json('segments such as {"start": 2, "end": 5}')), AfterValidator(_in_order)]
"""In the order of their beginning."""


def check_segments(segments: Sequence[Segment], voice_of: Sequence[int]) -> None:
    """Check segments against the tracks there are.

    Args:
        segments: in order.
        voice_of: by track, which voice it belongs to.

    Raises:
        InvalidOption: there is no such track, one is not used, or somebody would say two things at once.
    """
    used = {segment.audio for segment in segments}
    if missing := sorted(used - set(range(1, len(voice_of) + 1))):
        raise InvalidOption(f"A segment takes audio {missing[0]}, and the last one has the number {len(voice_of)}; count from 1.")
    if unused := sorted(set(range(1, len(voice_of) + 1)) - used):
        raise InvalidOption(f"Audio {unused[0]} is in no segment; give it one, or leave it out.")
    for voice in set(voice_of):
        for before, segment in pairwise(segment for segment in segments if voice_of[segment.audio - 1] == voice):
            if segment.start < before.end:
                raise InvalidOption(
                    f"The segments from {before.start:g} and from {segment.start:g} s overlap and have one speaker; "
                    "let one end before the other begins, or give each audio a speaker of its own."
                )
    reached, changed_until = 0.0, 0.0
    for segment in segments:
        if segment.start < (reached if segment.sync_mode else changed_until):
            raise InvalidOption(
                f"The segment from {segment.start:g} s overlaps one before it, and a sync_mode would change how long both last; "
                "leave it out, or let one end before the other begins."
            )
        reached = max(reached, segment.end)
        if segment.sync_mode:
            changed_until = max(changed_until, segment.end)


def check_begins_in(segment: Segment, video_s: Fraction) -> None:
    """Check that a segment does not begin behind the end of a video.

    Raises:
        InvalidOption: it does.
    """
    if segment.start >= video_s:
        raise InvalidOption(f"A segment begins at {segment.start:g} s, and the video ends at {float(video_s):.2f} s; begin earlier.")


def said_in(segments: Sequence[Segment], tracks: Sequence[AudioInfo], about_s: Fraction | None) -> list[Fraction]:
    """Return how long what is asked to be said in each segment is, s, in a video that is `about_s` long by its header; None: that says nothing.

    Raises:
        InvalidOption: a segment begins behind the end of the video, or of its track.
    """
    lengths_s = []
    for segment in segments:
        track, from_s = tracks[segment.audio - 1], exact_s(segment.audio_start)
        if about_s is not None and segment.start >= about_s * HEADERS_ERR_BY + 1:
            check_begins_in(segment, about_s)
        if from_s >= track.duration_s:
            raise InvalidOption(
                f"The segment from {segment.start:g} s takes its audio from {segment.audio_start:g} s on, and {track.path.name} has "
                f"{float(track.duration_s):.2f} s; begin earlier."
            )
        lengths_s.append((track.duration_s if segment.audio_end is None else min(exact_s(segment.audio_end), track.duration_s)) - from_s)
    return lengths_s


def placed(
    segments: Sequence[Segment], said_s: Sequence[Fraction], tracks: Sequence[AudioInfo], voice_of: Sequence[int], about_s: Fraction | None
) -> list[list[Passage]]:
    """Return by voice what it says, and when in the output. See `said_in` for `said_s` and `about_s`."""
    passages: list[list[Passage]] = [[] for _ in range(max(voice_of) + 1)]
    later_s = Fraction(0)
    for segment, asked_s in zip(segments, said_s, strict=True):
        start_s, end_s = exact_s(segment.start), exact_s(segment.end)
        if about_s is not None:
            end_s = min(end_s, about_s * HEADERS_ERR_BY + 1)
        lasts_s = own_s = end_s - start_s
        if segment.sync_mode is not None:
            lasts_s = lasting_s(segment.sync_mode, own_s, asked_s)
        heard_s, from_s = min(asked_s, lasts_s), exact_s(segment.audio_start)
        place_s = start_s + later_s
        passages[voice_of[segment.audio - 1]].append(
            Passage(tracks[segment.audio - 1], place_s, place_s + lasts_s, from_s, heard_s, asked_s - heard_s, start_s)
        )
        later_s += lasts_s - own_s
    return passages


def stretches_of(segments: Sequence[Segment], said_s: Sequence[Fraction], video_s: Fraction) -> list[Stretch]:
    """Return how long each part of a video lasts in the output, in order: segments with a mode of their own, and what lies between them.

    The video is as long as `video_s`; see `said_in` for `said_s`.
    """
    stretches, reached_s = list[Stretch](), Fraction(0)

    def keep(until_s: Fraction) -> None:
        if until_s > reached_s:
            stretches.append(Stretch(reached_s, until_s - reached_s, until_s - reached_s))

    for segment, asked_s in zip(segments, said_s, strict=True):
        if segment.sync_mode is not None:
            start_s = exact_s(segment.start)
            keep(start_s)
            reached_s = min(exact_s(segment.end), video_s)
            own_s = reached_s - start_s
            stretches.append(Stretch(start_s, own_s, lasting_s(segment.sync_mode, own_s, asked_s), segment.sync_mode))
    keep(video_s)
    return stretches


def until_last(segments: Sequence[Segment]) -> Fraction:
    """Return when the last segment ends, s: so long a picture is shown for them."""
    return exact_s(max(segment.end for segment in segments))


def speaking_shares(speech: AudioInfo, shown: Timeline) -> NDArray[np.float32]:
    """Return how far somebody's mouth is his speech's in each frame of an output, (N,), 0 (the source's own) to 1.

    Where a segment begins and ends, the mouth goes from one to the other in `FADE_S`, unless the video or another segment of his does so there.
    """
    if not speech.passages:
        return (np.arange(shown.frame_count) < shown.speech_frames).astype(np.float32)
    clock = shown.clock
    edges = np.arange(shown.frame_count + 1) if clock.starts is None else clock.starts
    middles_s = (edges[:-1] + edges[1:]) / 2 * float(clock.time_base)
    starts = {passage.start_s for passage in speech.passages}
    ends = {passage.end_s for passage in speech.passages}
    share = np.zeros(len(middles_s))
    for passage in speech.passages:
        begun_s, left_s = middles_s - float(passage.start_s), float(passage.end_s) - middles_s
        own = ((begun_s >= 0) & (left_s > 0)).astype(np.float64)
        if passage.start_s and passage.start_s not in ends:
            own *= np.clip(begun_s / FADE_S, 0, 1)
        if passage.end_s < shown.duration_s and passage.end_s not in starts:
            own *= np.clip(left_s / FADE_S, 0, 1)
        share = np.maximum(share, own)
    return share.astype(np.float32)
