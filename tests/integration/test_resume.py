"""A render that was ended goes on where it was, to the same bits, and a video that was seen before is not looked at again."""

import time
from pathlib import Path

import psutil
import pytest

from deploy.demo.clip import make_clip
from orchestrator import session
from orchestrator.errors import RenderCancelled, RenderInterrupted
from orchestrator.inference.client import TritonClient
from orchestrator.inference.usage import model_use
from orchestrator.pipeline.options import RenderOptions
from orchestrator.pipeline.plan import plan_render
from orchestrator.pipeline.progress import Progress
from orchestrator.pipeline.render import render
from orchestrator.pipeline.report import RenderReport
from orchestrator.pipeline.segments import finished_segments
from orchestrator.pipeline.tracks import TrackCache
from orchestrator.pipeline.watch import Watch
from orchestrator.settings import Settings
from tests.clips import write_speech

FAST = RenderOptions(preset="veryfast", crf=30)


@pytest.fixture(scope="module")
def long_speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven seconds, silent in the middle: five segments, and the clip forwards and backwards seven times."""
    return write_speech(tmp_path_factory.mktemp("speech") / "speech.wav", 7.0, silent_s=(3.0, 4.5))


@pytest.fixture(scope="module")
def undisturbed(small_clip: Path, long_speech: Path, client: TritonClient, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RenderReport]:
    out = tmp_path_factory.mktemp("undisturbed") / "out.mp4"
    return out, render(plan_render(small_clip, long_speech, out, FAST), client)


def test_render_resumed_after_every_segment_is_equal_to_the_last_bit(
    undisturbed: tuple[Path, RenderReport], small_clip: Path, long_speech: Path, client: TritonClient, tmp_path: Path
) -> None:
    out, segments = tmp_path / "out.mp4", tmp_path / "segments"
    rendered = 0
    for finished in (1, 2, 3, 4):
        watch = Watch()

        def leave_after_next_segment(progress: Progress, watch: Watch = watch, finished: int = finished) -> None:
            nonlocal rendered
            if progress.stage == "render" and progress.done >= 50 * (finished - 2) + 12 + 10 * (finished > 1):
                watch.leave_at_checkpoint()

        before = model_use(client, "lip_sync").inference_count
        with pytest.raises(RenderInterrupted):
            render(plan_render(small_clip, long_speech, out, FAST), client, leave_after_next_segment, watch=watch, segments=segments)
        rendered += model_use(client, "lip_sync").inference_count - before
        assert len(finished_segments(segments)) == finished
        assert not out.exists()
    report = render(plan_render(small_clip, long_speech, out, FAST), client, segments=segments)
    assert out.read_bytes() == undisturbed[0].read_bytes()
    assert report.passed_through == undisturbed[1].passed_through
    # Requests of the render that was ended may still be counted; a finished segment more would be fifty.
    assert 13 <= report.models["lip_sync"].inference_count < 13 + 50, "what is finished is not rendered again"
    again = render(plan_render(small_clip, long_speech, out, FAST), client, segments=segments)
    assert again.models["lip_sync"].inference_count == 0, "with every segment there, only the file is put together"
    assert out.read_bytes() == undisturbed[0].read_bytes()


def test_second_render_of_a_video_skips_the_analysis_and_is_the_same(
    undisturbed: tuple[Path, RenderReport], small_clip: Path, long_speech: Path, client: TritonClient, tmp_path: Path
) -> None:
    tracks = TrackCache(tmp_path / "tracks", 1 << 20)
    for is_first in (True, False):
        report = render(plan_render(small_clip, long_speech, tmp_path / "out.mp4", FAST), client, tracks=tracks)
        assert (report.models["face_detector"].inference_count > 0) == is_first
        assert (tmp_path / "out.mp4").read_bytes() == undisturbed[0].read_bytes()


def test_analysis_of_a_part_is_not_taken_for_the_whole(speech: Path, client: TritonClient, tmp_path: Path) -> None:
    """The part reaches to the end of a window of the search, frame 28: the faces of a frame do not depend on how many frames are looked at."""
    clip = tmp_path / "clip.mp4"
    make_clip(clip, duration_s=2)
    tracks = TrackCache(tmp_path / "tracks", 1 << 20)
    short = write_speech(tmp_path / "short.wav", 0.4)
    counts = []
    for audio in (short, short, speech, short):
        report = render(plan_render(clip, audio, tmp_path / "out.mp4", FAST), client, tracks=tracks)
        counts.append((report.source_frame_count, report.models["face_detector"].inference_count > 0))
    assert counts == [(10, True), (10, False), (50, True), (10, False)]


@pytest.mark.parametrize("stage", ["analyse", "render", "finish"])
def test_stop_ends_a_render_at_once_in_every_stage(stage: str, clip: Path, client: TritonClient, tmp_path: Path) -> None:
    speech = write_speech(tmp_path / "long.wav", 20.0 if stage == "render" else 2.0)
    watch, stopped_s = Watch(), 0.0

    def stop(progress: Progress) -> None:
        nonlocal stopped_s
        if progress.stage == stage and not stopped_s:
            stopped_s = time.process_time()
            watch.stop(RenderCancelled("Cancelled by the test."))

    with pytest.raises(RenderCancelled):
        render(plan_render(clip, speech, tmp_path / "out.mp4", FAST), client, stop, watch=watch)
    assert time.process_time() - stopped_s < 4, "as seconds of work: a machine that stands still makes nothing false"
    assert [path.name for path in tmp_path.iterdir()] == ["long.wav"]


def test_render_goes_on_from_its_segments_when_its_triton_dies(
    undisturbed: tuple[Path, RenderReport], small_clip: Path, long_speech: Path, tmp_path: Path
) -> None:
    killed: list[int] = []

    def kill_triton_once(progress: Progress) -> None:
        if progress.stage == "render" and progress.segment_count >= 2 and not killed:
            server = next(child for child in psutil.Process().children(recursive=True) if child.name() == "tritonserver" and child.pid not in others)
            server.kill()
            killed.append(server.pid)

    others = {child.pid for child in psutil.Process().children(recursive=True)}
    out = tmp_path / "out.mp4"
    settings = Settings(device="cpu", data=tmp_path / "data")
    report = session.render(small_clip, long_speech, out, options=FAST, on_progress=kill_triton_once, settings=settings)
    assert killed and out.read_bytes() == undisturbed[0].read_bytes()
    assert report.models["lip_sync"].inference_count < undisturbed[1].models["lip_sync"].inference_count, "what is finished is not rendered again"
    assert {path.name for path in tmp_path.iterdir()} == {"data", "out.mp4"}
