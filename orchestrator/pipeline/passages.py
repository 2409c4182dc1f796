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
from orchestrator.pipeline.speakers import from_json
from orchestrator.pipeline.timeline import Timeline

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
    """And ends, s. Speech that is longer is cut; behind speech that is shorter the mouth is at rest."""
    audio: int = Field(1, ge=1, le=16)
    """What is said: 1 is the first track."""
    audio_start: Seconds = 0.0
    """Where in it this begins, s."""
    audio_end: Seconds | None = None
    """And ends, s; None takes what there is."""


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


def check_begins_in(segment: Segment, video_s: Fraction) -> None:
    """Check that a segment does not begin behind the end of a video.

    Raises:
        InvalidOption: it does.
    """
    if segment.start >= video_s:
        raise InvalidOption(f"A segment begins at {segment.start:g} s, and the video ends at {float(video_s):.2f} s; begin earlier.")


def placed(segments: Sequence[Segment], tracks: Sequence[AudioInfo], voice_of: Sequence[int], voice: int, about_s: Fraction | None) -> list[Passage]:
    """Return what a voice says, and when, in a video that is `about_s` long by its header; None where that says nothing.

    Raises:
        InvalidOption: a segment begins behind the end of the video, or of its track.
    """
    passages = []
    for segment in segments:
        track = tracks[segment.audio - 1]
        if voice_of[segment.audio - 1] != voice:
            continue
        start_s, end_s, from_s = (_exact(time_s) for time_s in (segment.start, segment.end, segment.audio_start))
        if about_s is not None:
            if segment.start >= about_s * HEADERS_ERR_BY + 1:
                check_begins_in(segment, about_s)
            end_s = min(end_s, about_s * HEADERS_ERR_BY + 1)
        if from_s >= track.duration_s:
            raise InvalidOption(
                f"The segment from {segment.start:g} s takes its audio from {segment.audio_start:g} s on, and {track.path.name} has "
                f"{float(track.duration_s):.2f} s; begin earlier."
            )
        wanted_s = (track.duration_s if segment.audio_end is None else min(_exact(segment.audio_end), track.duration_s)) - from_s
        said_s = min(wanted_s, end_s - start_s)
        passages.append(Passage(track, start_s, end_s, from_s, said_s, wanted_s - said_s))
    return passages


def _exact(time_s: float) -> Fraction:
    """Return a time to the microsecond."""
    return Fraction(time_s).limit_denominator(1_000_000)


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
