"""Who speaks: what is asked for in px of the picture as it is shown, brought to the coded frame that faces are looked for in."""

import json
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, BeforeValidator

from orchestrator.errors import InvalidOption
from orchestrator.media.audio import Speech
from orchestrator.media.probe import VideoInfo
from preprocess.speaker import EveryFace, FaceAt, FaceBoxes, LargestFace, SpeakerChoice

_POINT = re.compile(r"(\d{1,5}(?:\.\d+)?),(\d{1,5}(?:\.\d+)?)(?:,(?:(\d{1,9})|(\d{1,6}(?:\.\d+)?)s))?")

Box = tuple[float, float, float, float]


def _known(text: str) -> str:
    if text not in ("auto", "all") and not _POINT.fullmatch(text):
        raise ValueError("must be auto, all, X,Y or X,Y,FRAME, as in 640,200, or 640,200,12 for frame 12, or 640,200,1.5s for a time")
    return text


def from_json(what: str) -> Callable[[Any], Any]:
    """Return what reads a list that a flag or a form's field brings as text; `what` says what it is a list of."""

    def read(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        with suppress(ValueError, RecursionError):
            if isinstance(found := json.loads(value), list):
                return found
        raise ValueError(f"must be JSON, a list of {what}")

    return read


def _real(boxes: tuple[Box | None, ...]) -> tuple[Box | None, ...]:
    if not any(boxes):
        raise ValueError("must have at least one box")
    for number, box in enumerate(boxes):
        if box is not None and not (box[0] < box[2] and box[1] < box[3]):
            raise ValueError(f"has a box without an area for frame {number}; boxes are [x1, y1, x2, y2]")
    return boxes


@dataclass(frozen=True, slots=True)
class Voice:
    """Somebody who speaks, and what he says."""

    choice: SpeakerChoice
    speech: Speech


@dataclass(frozen=True, slots=True)
class SpeakerAudio:
    """One more speaker, with a track of his own."""

    audio: Path
    speaker: str
    """`X,Y` or `X,Y,FRAME`, a point on his face; with segments nothing, too: one more track of the first speaker."""


def voices_of(speaker: str, others: Sequence[str]) -> list[int]:
    """Return by track to which voice it belongs, numbered from 0: a track without a speaker of its own is one more of the first one's."""
    known = [speaker]
    for other in others:
        if other and other not in known:
            known.append(other)
    return [0, *(known.index(other) if other else 0 for other in others)]


def check_speakers(speaker: str, others: Sequence[str]) -> None:
    """Check that several speakers can be told apart.

    Raises:
        InvalidOption: there are others, and one of them all is not chosen by a point.
    """
    for one in (speaker, *others) if others else ():
        if not _POINT.fullmatch(one):
            raise InvalidOption(f"Each of several speakers is chosen by a point on his face, X,Y or X,Y,FRAME; {one!r} is none.")


def check_speaker_image(speaker: str, boxes: Sequence[Box | None] | None, other_count: int) -> None:
    """Check that a picture of the speaker is all that chooses him.

    Raises:
        InvalidOption: something else does, too, or there are other speakers.
    """
    if speaker != "auto" or boxes is not None or other_count:
        raise InvalidOption("speaker_image says who speaks, alone: leave out speaker, speaker_boxes and further speakers.")


Speaker = Annotated[str, AfterValidator(_known)]
"""`auto`, `all`, `X,Y` or `X,Y,FRAME`, px of the picture as shown; FRAME is counted from 0, or a time as `1.5s`."""

Boxes = Annotated[tuple[Box | None, ...], BeforeValidator(from_json("boxes [x1, y1, x2, y2] or null")), AfterValidator(_real)]
"""For each frame x1 y1 x2 y2, px of the picture as shown, or null."""


def speaker_choice(speaker: str, boxes: Sequence[Box | None] | None, info: VideoInfo) -> SpeakerChoice:
    """Return what to look for in the coded frames of a video.

    Raises:
        InvalidOption: the point lies outside the picture.
    """
    if boxes is not None:
        return FaceBoxes(tuple(None if box is None else _box(box, info) for box in boxes))
    if speaker in ("auto", "all"):
        return LargestFace() if speaker == "auto" else EveryFace()
    found = _POINT.fullmatch(speaker)
    if found is None:
        raise ValueError(f"expected a speaker that was checked, got {speaker!r}")
    x, y = float(found[1]), float(found[2])
    frame = int(found[3] or max(Fraction(0), Fraction(found[4] or 0) - info.start_s) * info.frame_rate)
    width, height = info.shown_wh
    if x >= width or y >= height:
        raise InvalidOption(
            f"The speaker's point {found[1]},{found[2]} lies outside the picture of {width}x{height}; give px of the picture as shown."
        )
    x, y = (float(value) for value in _to_coded(np.array([x, y], np.float32), info))
    return FaceAt(frame, x, y)


def describe(choice: FaceAt, info: VideoInfo) -> str:
    """Return a choice's place as people know it."""
    x, y = _to_shown(np.array([choice.x, choice.y], np.float32), info)
    return f"{x:.0f},{y:.0f} in frame {choice.frame}"


def _to_coded(points: NDArray[np.float32], info: VideoInfo) -> NDArray[np.float32]:
    return info.orientation.to_coded(points, info.shown_wh)


def _to_shown(points: NDArray[np.float32], info: VideoInfo) -> NDArray[np.float32]:
    return info.orientation.inverse.to_coded(points, info.working_size_wh)


def _box(box: Box, info: VideoInfo) -> Box:
    corners = _to_coded(np.array(box, np.float32).reshape(2, 2), info)
    (x1, y1), (x2, y2) = corners.min(0).tolist(), corners.max(0).tolist()
    return x1, y1, x2, y2
