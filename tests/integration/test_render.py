"""Whole renders on the real Triton."""

import gc
import threading
import urllib.request
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, get_args

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from deploy.local.server import LocalTriton
from orchestrator.errors import NoFaceFound, RenderCancelled
from orchestrator.inference.client import TritonClient
from orchestrator.pipeline.options import RenderOptions
from orchestrator.pipeline.plan import plan_render
from orchestrator.pipeline.progress import Progress
from orchestrator.pipeline.render import render
from orchestrator.pipeline.report import RenderReport
from orchestrator.pipeline.timeline import SyncMode
from tests.clips import SPEECH_RATE_HZ, decoded, frames_of, pictures_in, speech_like, write_speech, write_video, write_wav

LOSSLESS = RenderOptions(lossless=True, preset="ultrafast")

SILENCE = range(29, 39)
"""Output frames whose mel window lies in the speech fixture's silence, with the model's smoothing to spare."""


def bounced(source: NDArray[np.uint8], count: int) -> NDArray[np.uint8]:
    """Return the source played forwards and backwards, by the textbook index."""
    period = 2 * len(source) - 2
    positions = np.arange(count) % period
    return source[np.where(positions < len(source), positions, period - positions)]


def assert_within_lower_face(changed: NDArray[np.bool_]) -> None:
    """Check that (N, 640, 640) changes lie between nose, neck and cheeks.

    In the photograph those are x 180..270, y 105..215; the clip shows it at a scale of 1.78 (from x 46, y 0) to 2.29 (from x 86, y 10),
    swaying by 10.
    """
    rows, columns = np.flatnonzero(changed.any((0, 2))), np.flatnonzero(changed.any((0, 1)))
    assert rows.min() > 187 and rows.max() < 469
    assert columns.min() > 195 and columns.max() < 440


@pytest.fixture(scope="module")
def rendered(clip: Path, speech: Path, client: TritonClient, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RenderReport]:
    out = tmp_path_factory.mktemp("rendered") / "out.mp4"
    return out, render(plan_render(clip, speech, out, LOSSLESS), client)


def metrics(triton: LocalTriton) -> dict[str, float]:
    with urllib.request.urlopen(f"http://{triton.metrics_address}/metrics", timeout=10) as response:
        lines = [line for line in response.read().decode().splitlines() if line and not line.startswith("#")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


def test_output_has_the_exact_number_of_frames_and_the_speech_from_its_first_sample(rendered: tuple[Path, RenderReport]) -> None:
    out, report = rendered
    with av.open(str(out)) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        assert video.frames == report.frame_count == round(2.5 * 25) == 62
        assert video.average_rate == 25
        assert (video.width, video.height) == (640, 640)
        first_audio = next(container.decode(audio))
        assert first_audio.pts is not None and first_audio.time_base is not None
        assert abs(first_audio.pts * first_audio.time_base) <= Fraction(5, 1000)


def test_samples_far_from_the_mouth_are_the_sources_own(rendered: tuple[Path, RenderReport], clip: Path) -> None:
    result = pictures_in(rendered[0])
    changed = result != bounced(pictures_in(clip), len(result))
    assert_within_lower_face(changed[:, :640])


def test_triton_did_the_work_in_batches(clip: Path, speech: Path, client: TritonClient, triton: LocalTriton, tmp_path: Path) -> None:
    before = metrics(triton)
    report = render(plan_render(clip, speech, tmp_path / "out.mp4"), client)
    after = metrics(triton)
    for role, items in (("face_detector", range(8, 25)), ("lip_sync", (62,))):  # the detector is not asked about every frame
        label = f'{{model="{role}",version="{report.models[role].version}"}}'
        executed = after[f"nv_inference_exec_count{label}"] - before[f"nv_inference_exec_count{label}"]
        inferred = after[f"nv_inference_count{label}"] - before[f"nv_inference_count{label}"]
        assert inferred in items and inferred == report.models[role].inference_count
        assert 0 < executed < inferred
        assert report.models[role].mean_batch > 1


def test_two_renders_are_equal_to_the_last_bit(
    rendered: tuple[Path, RenderReport], clip: Path, speech: Path, client: TritonClient, tmp_path: Path
) -> None:
    render(plan_render(clip, speech, tmp_path / "again.mp4", LOSSLESS), client)
    assert (tmp_path / "again.mp4").read_bytes() == rendered[0].read_bytes()


def test_still_image_speaks(clip: Path, speech: Path, client: TritonClient, tmp_path: Path) -> None:
    next(frames_of(clip)).save(str(tmp_path / "face.png"))
    report = render(plan_render(tmp_path / "face.png", speech, tmp_path / "out.mp4", LOSSLESS), client)
    result = pictures_in(tmp_path / "out.mp4")
    assert len(result) == report.frame_count == 62
    assert report.source_frame_count == 1
    assert (result[SILENCE[0]] == result[SILENCE[-1]]).all(), "in silence a still image is still"
    assert len({frame.tobytes() for frame in result}) > 20, "in speech it is not"


@pytest.mark.parametrize("mode", get_args(SyncMode))
def test_still_image_lasts_as_long_as_the_speech(mode: SyncMode, clip: Path, speech: Path, client: TritonClient, tmp_path: Path) -> None:
    """It has no length that could differ from the speech's."""
    next(frames_of(clip)).save(str(tmp_path / "face.png"))
    plan = plan_render(tmp_path / "face.png", speech, tmp_path / "out.mp4", RenderOptions(sync_mode=mode, preset="ultrafast"))
    assert plan.expected_frame_count == render(plan, client).frame_count == 62


def blank_in_the_middle(clip: Path, path: Path, blank: range) -> None:
    """Copy a clip, losslessly, with grey in place of some frames."""
    grey = av.VideoFrame.from_ndarray(np.full((960, 640), 128, np.uint8), format="yuv420p")
    write_video(path, (grey if index in blank else frame for index, frame in enumerate(frames_of(clip))))


def test_frames_without_a_face_pass_through_untouched(clip: Path, speech: Path, client: TritonClient, tmp_path: Path) -> None:
    blank = range(7, 20)  # longer than the gap that is bridged
    blank_in_the_middle(clip, tmp_path / "gap.mp4", blank)
    report = render(plan_render(tmp_path / "gap.mp4", speech, tmp_path / "out.mp4", LOSSLESS), client)
    assert report.face_frame_count == 25 - len(blank)
    result = pictures_in(tmp_path / "out.mp4")
    assert (result[blank.start : blank.stop] == 128).all()
    assert any(first <= blank.start and stop >= blank.stop for first, stop in report.passed_through)
    left_alone = sum(stop - first for first, stop in report.passed_through_because["no_face"])
    assert f"The speaker's lips stay as they are where no face is seen ({left_alone} frames)." in report.notes
    assert (result[:7] != pictures_in(tmp_path / "gap.mp4")[:7]).any(), "the frames with a face are rendered"


def test_video_without_a_face_fails_before_any_lip_sync_call(
    clip: Path, speech: Path, client: TritonClient, triton: LocalTriton, tmp_path: Path
) -> None:
    blank_in_the_middle(clip, tmp_path / "blank.mp4", range(25))
    before = metrics(triton)
    with pytest.raises(NoFaceFound, match="No face was found in the 25 frames"):
        render(plan_render(tmp_path / "blank.mp4", speech, tmp_path / "out.mp4"), client)
    counts = [name for name in before if name.startswith('nv_inference_count{model="lip_sync"')]
    assert counts and all(metrics(triton)[name] == before[name] for name in counts)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["blank.mp4"]


def test_turned_video_is_rendered_as_the_upright_one_and_keeps_its_rotation_tag(
    clip: Path, speech: Path, client: TritonClient, tmp_path: Path
) -> None:

    def turned_one(frame: av.VideoFrame) -> av.VideoFrame:
        pixels = np.asarray(np.rot90(frame.to_ndarray(format="yuv444p"), -1, axes=(1, 2)), np.uint8)
        return av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="yuv444p", channel_last=False)

    pictures = map(turned_one, frames_of(clip))
    turned = write_video(tmp_path / "turned.mp4", pictures, pix_fmt="yuv444p", set_up=lambda stream: stream.set_display_rotation(90))
    report = render(plan_render(turned, speech, tmp_path / "out.mp4", LOSSLESS), client)
    assert report.face_frame_count == 25
    frames = decoded(tmp_path / "out.mp4")
    assert frames[0].rotation == 90
    upright = np.stack([np.rot90(frame.to_ndarray()[0], 1) for frame in frames])
    assert_within_lower_face(upright != bounced(pictures_in(clip)[:, :640], len(upright)))


def test_cancelled_render_leaves_nothing_behind(clip: Path, speech: Path, client: TritonClient, tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    out.write_bytes(b"earlier result")
    threads = set(threading.enumerate())

    def cancel_in_render(progress: Progress) -> None:
        if progress.stage == "render" and progress.done:
            raise RenderCancelled("Cancelled by the test.")

    with pytest.raises(RenderCancelled):
        render(plan_render(clip, speech, out), client, on_progress=cancel_in_render)
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]
    assert out.read_bytes() == b"earlier result"
    assert not {thread for thread in threading.enumerate() if thread not in threads and "decode" in thread.name}


def test_progress_names_the_stages_and_ends_complete(clip: Path, speech: Path, client: TritonClient, tmp_path: Path) -> None:
    seen: list[Progress] = []
    render(plan_render(clip, speech, tmp_path / "out.mp4", on_progress=seen.append), client, on_progress=seen.append)
    last: dict[str, Any] = {progress.stage: progress for progress in seen}
    assert list(dict.fromkeys(progress.stage for progress in seen)) == ["read", "analyse", "render", "finish"]
    assert (last["analyse"].done, last["analyse"].total) == (25, 25)
    assert (last["render"].done, last["render"].total) == (62, 62)
    assert last["render"].eta_s == 0


def test_speech_shorter_than_a_frame_gives_one_frame(clip: Path, client: TritonClient, tmp_path: Path) -> None:
    write_speech(tmp_path / "blip.wav", 0.01)
    report = render(plan_render(clip, tmp_path / "blip.wav", tmp_path / "out.mp4"), client)
    assert report.frame_count == len(pictures_in(tmp_path / "out.mp4")) == 1


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.set_debug(0)
    gc.garbage.clear()
    gc.enable()


@pytest.mark.usefixtures("no_collector")
def test_what_a_render_held_goes_when_it_is_done_with_and_not_when_python_looks_for_cycles(
    clip: Path, speech: Path, client: TritonClient, tmp_path: Path
) -> None:
    """Requests in cycles once held their crops and mouths, some 50 MB of them, which a longer render saw more of."""
    render(plan_render(clip, speech, tmp_path / "out.mp4", LOSSLESS), client)
    gc.set_debug(gc.DEBUG_SAVEALL)
    gc.collect()
    ours = {type(each).__qualname__ for each in gc.garbage if type(each).__module__.partition(".")[0] in ("orchestrator", "preprocess", "grpc", "av")}
    assert not ours
    assert not [each for each in gc.garbage if isinstance(each, np.ndarray)]


@pytest.mark.parametrize(
    ("channel_count", "heard_count", "note"),
    [(32, 1, "32 channels have no layout (tracks of a mixer, or ambisonics); one was made of them"), (6, 2, "6 channels were mixed into two")],
)
def test_speech_of_many_channels_is_mixed_down_and_the_report_says_so(
    channel_count: int, heard_count: int, note: str, small_clip: Path, client: TritonClient, tmp_path: Path
) -> None:
    speech = write_wav(tmp_path / "speech.wav", np.tile(speech_like(0.4)[:, None], (1, channel_count)), SPEECH_RATE_HZ)
    report = render(plan_render(small_clip, speech, tmp_path / "out.mp4", LOSSLESS), client)
    assert any(note in found for found in report.notes)
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.streams.audio[0].codec_context.layout.nb_channels == heard_count
