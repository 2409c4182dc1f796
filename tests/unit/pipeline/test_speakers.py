"""Speakers as they are asked for, in px of the shown picture, and as they are looked for, in px of the coded frame."""

from dataclasses import replace
from fractions import Fraction

import pytest
from pydantic import ValidationError

from orchestrator.api.v2_options import render_options
from orchestrator.api.v2_schema import Options
from orchestrator.errors import InvalidOption
from orchestrator.media.probe import VideoInfo, probe_video
from orchestrator.pipeline.options import RenderOptions
from orchestrator.pipeline.speakers import describe, speaker_choice
from preprocess.orientation import Orientation
from preprocess.speaker import EveryFace, FaceAt, FaceBoxes, LargestFace
from tests.clips import Clip, make_clip


@pytest.fixture(scope="module")
def info(tmp_path_factory: pytest.TempPathFactory) -> VideoInfo:
    """96 x 64."""
    return probe_video(make_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", Clip(frame_count=2)))


def test_words_and_points_are_told_apart(info: VideoInfo) -> None:
    assert speaker_choice("auto", None, info) == LargestFace()
    assert speaker_choice("all", None, info) == EveryFace()
    assert speaker_choice("10,20", None, info) == FaceAt(0, 10, 20)
    assert speaker_choice("10.5,20,7", None, info) == FaceAt(7, 10.5, 20)
    assert speaker_choice("auto", [None, (1, 2, 3, 4)], info) == FaceBoxes((None, (1, 2, 3, 4)))


@pytest.mark.parametrize(
    ("orientation", "shown", "coded"),
    [
        (Orientation(90), (20, 10), (85, 20)),
        (Orientation(180), (10, 20), (85, 43)),
        (Orientation(270), (20, 10), (10, 43)),
        (Orientation(0, True), (10, 20), (85, 20)),
        (Orientation(90, True), (20, 10), (85, 43)),
        (Orientation(180, True), (10, 20), (10, 43)),
        (Orientation(270, True), (20, 10), (10, 20)),
    ],
)
def test_point_in_a_turned_or_mirrored_picture_is_brought_to_the_frame_and_back(
    orientation: Orientation, shown: tuple[int, int], coded: tuple[int, int], info: VideoInfo
) -> None:
    """A frame of 96 x 64 that is turned counter-clockwise by so much, then mirrored or not, to be shown."""
    turned = replace(info, orientation=orientation)
    choice = speaker_choice(f"{shown[0]},{shown[1]}", None, turned)
    assert choice == FaceAt(0, *coded)
    assert describe(choice, turned) == f"{shown[0]},{shown[1]} in frame 0"


def test_box_in_a_turned_picture_keeps_its_corners_in_order(info: VideoInfo) -> None:
    choice = speaker_choice("auto", [(20, 10, 30, 40)], replace(info, orientation=Orientation(90)))
    assert choice == FaceBoxes(((55, 20, 85, 30),))


@pytest.mark.parametrize(("asked", "frame"), [("12", 12), ("0s", 0), ("0.199s", 0), ("0.2s", 0), ("0.24s", 1), ("1.239s", 25), ("100s", 2495)])
def test_frame_of_a_point_is_a_number_or_a_time(asked: str, frame: int, info: VideoInfo) -> None:
    late = replace(info, frame_rate=Fraction(25), start_s=Fraction("0.2"))
    assert speaker_choice(f"20,10,{asked}", None, late) == FaceAt(frame, 20, 10)


def test_point_outside_the_picture_as_shown_is_refused(info: VideoInfo) -> None:
    with pytest.raises(InvalidOption, match="outside the picture of 96x64"):
        speaker_choice("10,64", None, info)
    assert speaker_choice("10,64", None, replace(info, orientation=Orientation(90))) == FaceAt(0, 31, 10)


@pytest.mark.parametrize("text", ["", "left", "10", "10;20", "-1,5", "1,2,3,4", "1,2,x", "1,2,s", "1,2,-1s", "nan,2"])
def test_other_words_are_refused(text: str) -> None:
    with pytest.raises(ValidationError, match="must be auto, all, X,Y or X,Y,FRAME"):
        RenderOptions(speaker=text)


@pytest.mark.parametrize("boxes", ["[[1,2,3]]", "[[5,2,3,4]]", "nothing", "[]", "[null]", "{}"])
def test_boxes_that_are_none_are_refused(boxes: str) -> None:
    with pytest.raises(ValidationError):
        RenderOptions.model_validate({"speaker_boxes": boxes})


def test_boxes_are_given_as_text_where_there_is_nothing_but_text() -> None:
    assert RenderOptions.model_validate({"speaker_boxes": "[null, [1, 2, 3, 4]]"}).speaker_boxes == (None, (1, 2, 3, 4))


def test_two_ways_to_say_who_speaks_are_refused() -> None:
    with pytest.raises(InvalidOption, match="give one of them"):
        RenderOptions(speaker="all", speaker_boxes=((1, 2, 3, 4),)).check()


@pytest.mark.parametrize(
    ("asked", "speaker", "boxes"),
    [
        ({}, "auto", None),
        ({"auto_detect": False}, "auto", None),
        ({"auto_detect": True}, "auto", None),
        ({"auto_detect": False, "frame_number": 12, "coordinates": [640, 200]}, "640.00,200.00,12", None),
        ({"coordinates": [640, 200]}, "640.00,200.00,0", None),
        ({"bounding_boxes": [None, [1, 2, 3, 4]]}, "auto", (None, (1, 2, 3, 4))),
    ],
)
def test_sync_so_s_active_speaker_detection_is_understood(asked: object, speaker: str, boxes: object) -> None:
    options = render_options(Options.model_validate({"active_speaker_detection": asked}))
    assert (options.speaker, options.speaker_boxes) == (speaker, boxes)


@pytest.mark.parametrize(
    "asked",
    [
        {"active_speaker_detection": {"auto_detect": True, "coordinates": [1, 2]}},
        {"active_speaker_detection": {"coordinates": [1, 2], "bounding_boxes": [[1, 2, 3, 4]]}},
        {"active_speaker_detection": {"frame_number": 3}},
        {"active_speaker_detection": {"coordinates": [1, 2]}, "speaker": "all"},
    ],
)
def test_contradictions_are_refused(asked: object) -> None:
    with pytest.raises(InvalidOption, match="active_speaker_detection"):
        render_options(Options.model_validate(asked))
