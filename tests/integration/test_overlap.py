"""Rendering begins while the analysis is still under way, and makes the same bits as when the analysis had ended before."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from deploy.demo.clip import make_clip
from orchestrator.errors import NoFaceFound, RenderCancelled, RenderInterrupted
from orchestrator.inference.client import TritonClient
from orchestrator.inference.detector import FaceDetector
from orchestrator.inference.usage import model_use
from orchestrator.media.foreseen import ForeseenFrames, foresee_frames
from orchestrator.media.probe import probe_video
from orchestrator.pipeline import underway
from orchestrator.pipeline.analyse import Extent, KnownFaces, analyse
from orchestrator.pipeline.options import RenderOptions
from orchestrator.pipeline.plan import plan_render
from orchestrator.pipeline.progress import Progress
from orchestrator.pipeline.render import render
from orchestrator.pipeline.report import RenderReport
from orchestrator.pipeline.segments import finished_segments
from orchestrator.pipeline.tracks import TrackCache
from orchestrator.pipeline.underway import UnderWay
from orchestrator.pipeline.watch import Watch
from tests.clips import frames_of, write_speech, write_video

SIDE_PX = 192
FACELESS, WITH_FACE = 20, 100
FAST = RenderOptions(preset="ultrafast")


B_FRAMES = {"crf": "16", "preset": "veryfast", "bf": "3"}


@pytest.fixture(scope="module")
def faceless() -> list[Any]:
    """Pictures of nobody."""
    noise = np.random.default_rng(3).integers(0, 255, (6, 6, 3), np.uint8)
    return [cv2.resize(noise, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_CUBIC)] * FACELESS


@pytest.fixture(scope="module")
def film(faceless: list[Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Somebody who comes into sight with a cut, and is seen for four seconds."""
    folder = tmp_path_factory.mktemp("film")
    make_clip(folder / "large.mp4", WITH_FACE // 25)
    pictures = [frame.reformat(SIDE_PX, SIDE_PX, format="rgb24").to_ndarray() for frame in frames_of(folder / "large.mp4")]
    return write_video(folder / "film.mp4", faceless + pictures, B_FRAMES)


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_speech(tmp_path_factory.mktemp("words") / "words.wav", 6.0, silent_s=(4.0, 4.5))


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each render of a test began before its analysis had ended."""
    found: list[bool] = []
    begin = UnderWay.begin

    def watched(*arguments: Any) -> UnderWay | None:
        under_way = begin(*arguments)
        found.append(under_way is not None)
        return under_way

    monkeypatch.setattr(UnderWay, "begin", watched)
    return found


def told(report: RenderReport) -> dict[str, Any]:
    """Return what a report says of the output."""
    return {name: value for name, value in asdict(report).items() if name not in ("output", "stage_s", "frames_per_s", "models")}


@pytest.fixture(scope="module")
def undisturbed(film: Path, words: Path, client: TritonClient, tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, RenderReport]:
    """The film forwards and backwards, all of it analysed before it is rendered."""
    out = tmp_path_factory.mktemp("undisturbed") / "out.mp4"
    tracks, info, watch = TrackCache(out.parent / "tracks", 1 << 30), probe_video(film), Watch()
    detector = FaceDetector(client)
    analyse(info, detector, Extent(None, 1000), known=KnownFaces(info, detector, tracks, watch))
    report = render(plan_render(film, words, out, FAST), client, tracks=tracks)
    return out.read_bytes(), report


def test_output_is_the_same_to_the_bit_as_when_the_analysis_had_ended_before(
    undisturbed: tuple[bytes, RenderReport], film: Path, words: Path, client: TritonClient, tmp_path: Path, begun: list[bool]
) -> None:
    report = render(plan_render(film, words, tmp_path / "out.mp4", FAST), client)
    assert begun == [True]
    assert (tmp_path / "out.mp4").read_bytes() == undisturbed[0]
    assert told(report) == told(undisturbed[1])
    assert (report.face_frame_count, report.cuts) == (WITH_FACE, (FACELESS,))


def test_part_of_a_video_is_the_same_too_and_what_was_seen_of_it_is_kept(
    film: Path, words: Path, client: TritonClient, tmp_path: Path, begun: list[bool]
) -> None:
    options = RenderOptions(preset="ultrafast", audio_offset=-2.0, frame_rate="keep")
    tracks = TrackCache(tmp_path / "tracks", 1 << 30)
    reports = [render(plan_render(film, words, tmp_path / f"{name}.mp4", options), client, tracks=tracks) for name in ("new", "known")]
    assert begun == [True], "the second one finds everything in the cache"
    assert reports[0].source_frame_count == 100
    assert (tmp_path / "new.mp4").read_bytes() == (tmp_path / "known.mp4").read_bytes()
    assert told(reports[0]) == told(reports[1])


def test_frames_of_somebody_else_are_told_from_those_of_nobody_either_way(
    words: Path, client: TritonClient, tmp_path: Path, begun: list[bool]
) -> None:
    """A curtain is drawn before the speaker; a smaller face stays in sight."""
    make_clip(tmp_path / "one.mp4", 1)
    face = next(frames_of(tmp_path / "one.mp4")).reformat(112, 112, format="rgb24").to_ndarray()
    both = np.full((SIDE_PX, SIDE_PX, 3), 90, np.uint8)
    both[40:152, :112], both[60:132, 116:188] = face, cv2.resize(face, (72, 72), interpolation=cv2.INTER_AREA)
    pictures = []
    for frame in range(80):
        pictures.append(both.copy())
        pictures[-1][:, : min(max(frame - 30, 0) * 4, 112)] = 60
    film, tracks = write_video(tmp_path / "film.mp4", pictures, B_FRAMES), TrackCache(tmp_path / "tracks", 1 << 30)
    plan = plan_render(film, words, tmp_path / "out.mp4", RenderOptions(preset="ultrafast", sync_mode="cut_off"))
    new, known = (render(plan, client, tracks=tracks) for _ in range(2))
    assert begun == [True]
    ((first, stop),) = new.speakers[0].left_alone["not_the_speaker"]
    assert 32 < first < 60 and stop == 80 and not new.cuts
    assert told(new) == told(known)


@pytest.mark.parametrize("lie", ["a stamp", "a frame too many"])
def test_video_with_other_frames_than_its_packets_say_is_rendered_by_those_it_has(
    lie: str,
    undisturbed: tuple[bytes, RenderReport],
    film: Path,
    words: Path,
    client: TritonClient,
    tmp_path: Path,
    begun: list[bool],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def foreseen(*arguments: Any) -> ForeseenFrames | None:
        truth = foresee_frames(*arguments)
        assert truth is not None
        pts = truth.pts.copy()
        pts[100] += 1
        return ForeseenFrames(pts if lie == "a stamp" else np.append(truth.pts, 2 * truth.pts[-1] - truth.pts[-2]), truth.is_whole)

    monkeypatch.setattr(underway, "foresee_frames", foreseen)
    report = render(plan_render(film, words, tmp_path / "out.mp4", FAST), client)
    assert begun == [True]
    assert (tmp_path / "out.mp4").read_bytes() == undisturbed[0]
    assert told(report) == told(undisturbed[1])


def test_render_that_was_ended_goes_on_from_its_segments_with_an_analysis_of_its_own(
    undisturbed: tuple[bytes, RenderReport], film: Path, words: Path, client: TritonClient, tmp_path: Path, begun: list[bool]
) -> None:
    watch, segments = Watch(), tmp_path / "segments"

    def leave(progress: Progress) -> None:
        if progress.stage == "render" and progress.done:
            watch.leave_at_checkpoint()

    with pytest.raises(RenderInterrupted):
        render(plan_render(film, words, tmp_path / "out.mp4", FAST), client, leave, watch=watch, segments=segments)
    finished = sum(segment.file.frame_count for segment in finished_segments(segments))
    assert 0 < finished < 100
    report = render(plan_render(film, words, tmp_path / "out.mp4", FAST), client, segments=segments)
    assert begun == [True, True]
    assert (tmp_path / "out.mp4").read_bytes() == undisturbed[0]
    assert told(report) == told(undisturbed[1])


def test_video_without_a_face_is_refused_before_any_lip_sync_call(
    faceless: list[Any], words: Path, client: TritonClient, tmp_path: Path, begun: list[bool]
) -> None:
    video = write_video(tmp_path / "nobody.mp4", 6 * faceless, B_FRAMES)
    before = model_use(client, "lip_sync").inference_count
    with pytest.raises(NoFaceFound):
        render(plan_render(video, words, tmp_path / "out.mp4", FAST), client)
    assert begun == [True]
    assert model_use(client, "lip_sync").inference_count == before
    assert [path.name for path in tmp_path.iterdir()] == ["nobody.mp4"]


def test_render_that_is_ended_ends_its_analysis(film: Path, words: Path, client: TritonClient, tmp_path: Path, begun: list[bool]) -> None:
    def leave(progress: Progress) -> None:
        if progress.stage == "render":
            raise RenderCancelled("Enough seen.")

    with pytest.raises(RenderCancelled, match="Enough seen"):
        render(plan_render(film, words, tmp_path / "out.mp4", FAST), client, leave)
    assert begun == [True]
    assert not list(tmp_path.iterdir())
