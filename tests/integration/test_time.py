"""Renders of a source with a variable frame rate, and the seam of a loop."""

from fractions import Fraction
from itertools import accumulate, pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from orchestrator.errors import InvalidOption, RenderInterrupted
from orchestrator.inference.client import TritonClient
from orchestrator.pipeline.options import RenderOptions
from orchestrator.pipeline.plan import plan_render
from orchestrator.pipeline.progress import Progress
from orchestrator.pipeline.render import render
from orchestrator.pipeline.segments import finished_segments
from orchestrator.pipeline.tracks import TrackCache
from orchestrator.pipeline.watch import Watch
from tests.clips import decoded, write_speech

LOSSLESS = RenderOptions(lossless=True, preset="ultrafast")
LENGTHS_MS = [20, 20, 80, 40, 40, 40, 10, 30, 120, 40, 40, 40] * 2
STARTS_MS = [*accumulate([0, *LENGTHS_MS])]
"""Starts of 25 frames, 40 ms long for the greater part, 1080 ms in all."""

HEADROOM = slice(0, 60)
"""Rows above the face, which no lip model edits."""


def frames_of(path: Path) -> tuple[NDArray[np.uint8], list[Fraction]]:
    frames = decoded(path)
    return np.stack([frame.to_ndarray() for frame in frames]), [(frame.pts or 0) * Fraction(frame.time_base or 0) for frame in frames]


@pytest.fixture(scope="module")
def phone(small_clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The clip with a variable frame rate, as phones and browsers record."""
    path = tmp_path_factory.mktemp("phone") / "phone.mp4"
    with av.open(str(small_clip)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream("libx264", rate=1000, options={"qp": "0", "preset": "ultrafast"})
        stream.width = stream.height = 256
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for frame, start_ms in zip(source.decode(video=0), STARTS_MS, strict=True):
            frame.pts, frame.time_base = start_ms, Fraction(1, 1000)
            frame.pict_type = av.video.frame.PictureType.NONE
            target.mux(stream.encode(frame))
        target.mux(stream.encode(None))
    return path


@pytest.fixture(scope="module")
def tracks(tmp_path_factory: pytest.TempPathFactory) -> TrackCache:
    return TrackCache(tmp_path_factory.mktemp("tracks"), 1 << 20)


@pytest.fixture(scope="module")
def speech3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_speech(tmp_path_factory.mktemp("speech") / "speech.wav", 3.0)


def on_screen(ms: float) -> int:
    return max(number for number, start in enumerate(STARTS_MS) if start <= ms)


def numbers(source: NDArray[np.uint8], output: NDArray[np.uint8]) -> list[int]:
    """Return which source frame each output frame is."""
    return [next(n for n, frame in enumerate(source) if np.array_equal(frame[HEADROOM], picture[HEADROOM])) for picture in output]


def test_variable_frame_rate_becomes_constant_by_what_is_on_screen(
    phone: Path, speech3: Path, client: TritonClient, tracks: TrackCache, tmp_path: Path
) -> None:
    out = tmp_path / "out.mp4"
    report = render(plan_render(phone, speech3, out, LOSSLESS.model_copy(update={"sync_mode": "loop"})), client, tracks=tracks)
    output, starts = frames_of(out)
    assert report.frame_rate == "25" and report.frame_count == len(output) == 75
    assert starts == [Fraction(k, 25) for k in range(75)]
    source, _ = frames_of(phone)
    once = [on_screen(40 * k + 20) for k in range(27)]
    assert numbers(source, output) == (once * 3)[:75]
    assert any("variable frame rate" in note and "25 frames/s" in note for note in report.notes)
    assert report.duration_s == report.audio_duration_s == 3


def test_kept_variable_frame_rate_goes_on_to_the_same_bits_where_it_was_ended(
    phone: Path, speech3: Path, client: TritonClient, tracks: TrackCache, tmp_path: Path
) -> None:
    options = LOSSLESS.model_copy(update={"frame_rate": "keep"})
    once, twice, segments, watch = tmp_path / "once.mp4", tmp_path / "twice.mp4", tmp_path / "segments", Watch()
    report = render(plan_render(phone, speech3, once, options), client, tracks=tracks)

    def leave(progress: Progress) -> None:
        if progress.stage == "render" and progress.done >= 10:
            watch.leave_at_checkpoint()

    with pytest.raises(RenderInterrupted):
        render(plan_render(phone, speech3, twice, options), client, leave, watch=watch, tracks=tracks, segments=segments)
    assert 0 < sum(segment.file.frame_count for segment in finished_segments(segments)) < report.frame_count
    render(plan_render(phone, speech3, twice, options), client, tracks=tracks, segments=segments)
    assert once.read_bytes() == twice.read_bytes()
    output, starts = frames_of(once)
    source, _ = frames_of(phone)
    shown = numbers(source, output)
    assert shown == [*range(25), *range(23, -1, -1), *range(1, 25)][: len(output)]
    assert [after - before for before, after in pairwise(starts)] == [Fraction([*LENGTHS_MS, 40][number], 1000) for number in shown[:-1]]
    assert report.frame_count == len(output) and abs(report.duration_s - 3) <= 0.06
    assert not np.array_equal(output[5], source[5]), "the mouth moves"


def test_loop_s_seam_is_faded_and_both_mouths_move(small_clip: Path, speech3: Path, client: TritonClient, tracks: TrackCache, tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    options = LOSSLESS.model_copy(update={"sync_mode": "loop", "loop_crossfade": 0.2})
    report = render(plan_render(small_clip, speech3, out, options), client, tracks=tracks)
    output, _ = frames_of(out)
    source, _ = frames_of(small_clip)
    assert report.frame_count == len(output) == 75
    for first in (20, 40, 60):
        for place in range(5):
            weight = (place + 1) / 6
            expected = source[20 + place].astype(float) * (1 - weight) + source[place].astype(float) * weight
            mixed = output[first + place]
            np.testing.assert_allclose(mixed[HEADROOM], expected[HEADROOM], atol=0.51)
            assert np.abs(mixed[128:256] - expected[128:256]).max() > 4, "the mouth is not the source's"
    assert numbers(source, output[5:20]) == [*range(5, 20)] and numbers(source, output[25:40]) == [*range(5, 20)]
    mouths = output[:, 150:210, 90:166].astype(float)
    steps = np.abs(np.diff(mouths, axis=0)).mean((1, 2))
    assert steps[18:26].max() < 1.6 * np.delete(steps, np.r_[18:26]).max(), "nothing jumps at the seam"


def test_seam_of_a_kept_variable_frame_rate_is_faded_at_the_sources_own_times(
    phone: Path, client: TritonClient, tracks: TrackCache, tmp_path: Path
) -> None:
    options = LOSSLESS.model_copy(update={"sync_mode": "loop", "loop_crossfade": 0.2, "frame_rate": "keep"})
    speech = write_speech(tmp_path / "speech.wav", 1.5)
    report = render(plan_render(phone, speech, tmp_path / "out.mp4", options), client, tracks=tracks)
    output, starts = frames_of(tmp_path / "out.mp4")
    source, _ = frames_of(phone)
    # 0.2 s before the end, at 880 ms, frame 20 is shown, from 800 to 920 ms: the loop begins again when it is over.
    shown = [*range(21), *range(len(output) - 21)]
    assert starts == [Fraction(STARTS_MS[number] + 920 * (place > 20), 1000) for place, number in enumerate(shown)]
    assert report.frame_count == len(output) and abs(report.duration_s - 1.5) <= 0.06
    for number, (under, weight) in enumerate([(21, 10 / 160), (21, 30 / 160), (23, 80 / 160), (24, 140 / 160)]):
        expected = source[under].astype(float) * (1 - weight) + source[number].astype(float) * weight
        np.testing.assert_allclose(output[21 + number][HEADROOM], expected[HEADROOM], atol=0.51)
        assert np.abs(output[21 + number][128:256] - expected[128:256]).max() > 4, "the mouth is not the source's"
    assert numbers(source, output[:21]) == [*range(21)] and numbers(source, output[25:]) == shown[25:]


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"frame_rate": "fast"}, "frame_rate"),
        ({"frame_rate": "1000"}, "from 1 to 240"),
        ({"frame_rate": "25/0"}, "frame_rate"),
        ({"loop_crossfade": 1}, "sync_mode loop"),
        ({"audio_offset": -60}, "leaves nothing"),
    ],
)
def test_options_of_time_that_cannot_work_are_refused(given: dict[str, object], match: str, small_clip: Path, speech3: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidOption, match=match):
        plan_render(small_clip, speech3, tmp_path / "out.mp4", RenderOptions.model_validate(given))
