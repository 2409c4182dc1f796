"""Two people in one picture: whose lips move, on the real Triton."""

from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from orchestrator.errors import InvalidOption, SpeakerNotFound
from orchestrator.inference.client import TritonClient
from orchestrator.pipeline.options import RenderOptions
from orchestrator.pipeline.plan import plan_render
from orchestrator.pipeline.render import render
from orchestrator.pipeline.report import RenderReport
from orchestrator.pipeline.speakers import SpeakerAudio
from orchestrator.pipeline.tracks import TrackCache
from tests.clips import SPEECH_RATE_HZ, pictures_in, write_speech, write_wav

SIDE = 256


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One second of speech."""
    return write_speech(tmp_path_factory.mktemp("speech") / "one.wav", 1.0)


@pytest.fixture(scope="module")
def tracks(tmp_path_factory: pytest.TempPathFactory) -> TrackCache:
    return TrackCache(tmp_path_factory.mktemp("tracks"), 1 << 24)


def moved(pair: Path, out: Path) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return for each frame whether the left and the right person's picture was changed."""
    changed = (pictures_in(out) != pictures_in(pair))[:, :SIDE]
    return changed[:, :, :SIDE].any((1, 2)), changed[:, :, SIDE:].any((1, 2))


BOXES = [[300, 40, 480, 220]] * 10 + [None] * 5 + [[40, 20, 220, 240]] * 10


@pytest.mark.parametrize(
    ("asked", "left", "right"),
    [
        ({}, range(25), range(0)),
        ({"speaker": "all"}, range(25), range(25)),
        ({"speaker": "390,110,20"}, range(0), range(25)),
        ({"speaker_boxes": BOXES}, range(15, 25), range(10)),
    ],
)
def test_lips_move_of_those_who_were_chosen_and_of_nobody_else(
    asked: dict[str, object], left: range, right: range, pair: Path, second: Path, client: TritonClient, tracks: TrackCache, tmp_path: Path
) -> None:
    options = RenderOptions.model_validate({"lossless": True, "preset": "ultrafast", **asked})
    report = render(plan_render(pair, second, tmp_path / "out.mp4", options), client, tracks=tracks)
    for changed, expected in zip(moved(pair, tmp_path / "out.mp4"), (left, right), strict=True):
        allowed = np.isin(np.arange(25), expected)
        assert not changed[~allowed].any(), "who was not chosen is the source's own, to the last bit"
        assert changed[allowed].sum() >= 0.7 * len(expected), "the others speak, but for the rests between syllables"
    assert [speaker.seen for speaker in report.speakers] == _seen(asked, report)
    assert report.cuts == ()


def _seen(asked: dict[str, object], report: RenderReport) -> list[tuple[tuple[int, int], ...]]:
    if "speaker_boxes" not in asked:
        return [((0, 25),)] * (2 if asked.get("speaker") == "all" else 1)
    assert report.speakers[0].left_alone == {"not_the_speaker": ((10, 15),)}
    assert report.passed_through_because["not_the_speaker"] == ((10, 15),)
    return [((0, 10), (15, 25))]


@pytest.mark.parametrize(
    ("speaker", "error", "sentence"),
    [
        ("600,10", InvalidOption, "outside the picture of 512x256"),
        ("250,5,3", SpeakerNotFound, "No face is at 250,5 in frame 3: the faces there are at"),
        ("390,110,25", InvalidOption, "chosen by frame 25, and the video has 25 frames"),
    ],
)
def test_speaker_who_is_not_there_is_told(
    speaker: str, error: type[Exception], sentence: str, pair: Path, second: Path, client: TritonClient, tracks: TrackCache, tmp_path: Path
) -> None:
    with pytest.raises(error, match=sentence):
        render(plan_render(pair, second, tmp_path / "out.mp4", RenderOptions(speaker=speaker)), client, tracks=tracks)
    assert not list(tmp_path.iterdir())


def test_two_speakers_each_speak_their_own_track_and_are_heard_together(pair: Path, client: TritonClient, tracks: TrackCache, tmp_path: Path) -> None:
    """The left one speaks first, the right one then, and longer than the left one's track. Who does not speak has his mouth closed."""
    first = write_speech(tmp_path / "first.wav", 0.8, silent_s=(0.4, 0.8))
    then = write_speech(tmp_path / "then.wav", 1.0, silent_s=(0.0, 0.6))
    silence = write_wav(tmp_path / "silence.wav", np.zeros(SPEECH_RATE_HZ, np.float32), SPEECH_RATE_HZ)
    options = RenderOptions(lossless=True, preset="ultrafast", speaker="128,110")
    for left_audio, right_audio, name in ((silence, silence, "quiet.mp4"), (first, then, "out.mp4")):
        others = [SpeakerAudio(right_audio, "390,110,5")]
        report = render(plan_render(pair, left_audio, tmp_path / name, options, others=others), client, tracks=tracks)
    assert (report.frame_count, report.audio_duration_s) == (25, 1.0)
    assert [(speaker.speaker, speaker.seen) for speaker in report.speakers] == [(0, ((0, 25),)), (1, ((0, 25),))]
    left, right = moved(tmp_path / "quiet.mp4", tmp_path / "out.mp4")
    assert left[:9].sum() >= 6 and not left[14:].any()
    assert right[16:24].sum() >= 6 and not right[:11].any()
    with av.open(str(tmp_path / "out.mp4")) as container:
        frames = [frame.to_ndarray()[0] for frame in container.decode(audio=0)]
        rate = container.streams.audio[0].rate
    sound = np.concatenate(frames)[: int(rate)]
    loud = [float(np.sqrt(np.mean(sound[int(rate * start) : int(rate * stop)] ** 2))) for start, stop in ((0.05, 0.35), (0.45, 0.58), (0.65, 0.95))]
    assert loud[0] > 0.05 and loud[2] > 0.05 and loud[1] < 0.01


@pytest.mark.parametrize("speaker", ["auto", "all"])
def test_several_speakers_need_a_point_each(speaker: str, pair: Path, second: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidOption, match="chosen by a point"):
        plan_render(pair, second, tmp_path / "out.mp4", RenderOptions(speaker=speaker), others=[SpeakerAudio(second, "390,110")])
