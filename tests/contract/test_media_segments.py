"""The output in segments: a stream while it grows, one file in the end, the same bits however often it was begun again."""

import itertools
import shutil
import struct
from collections.abc import Iterable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import psutil
import pytest

from orchestrator.errors import RenderInterrupted, StorageFull
from orchestrator.media.assembly import assemble, read_init_bytes
from orchestrator.media.audio import AudioInfo, read_speech
from orchestrator.media.clock import OutputClock
from orchestrator.media.encoding import Encoding
from orchestrator.media.output import choose_output
from orchestrator.media.planes import plane_view
from orchestrator.media.sound import SpeechEncoder
from orchestrator.pipeline.segments import SegmentFolder, SegmentWriter, finished_segments
from orchestrator.pipeline.watch import Watch
from tests.clips import SPEECH_RATE_HZ, decoded, decoded_sound, info_of, number_of, numbered_planes, picture_of, write_speech

PAL = OutputClock.constant(Fraction(25))

FRAMES = 121
"""A first segment of half a second, two whole ones and nine frames, at 25 frames a second."""

B_FRAMES = Encoding(preset="veryfast", thread_count=2)
NO_B_FRAMES = Encoding(preset="ultrafast", thread_count=1)
MANY_THREADS = Encoding(preset="veryfast", thread_count=16)
"""As on a host with many cores: a segment is finished while the next one is written."""
BIT_RATE = replace(B_FRAMES, bitrate=100_000)
"""What an encoder is told depends on the segments before it."""


@pytest.fixture
def speech(tmp_path: Path) -> AudioInfo:
    return read_speech(write_speech(tmp_path / "speech.wav", FRAMES / 25)).info


def picture(number: int) -> av.VideoFrame:
    return picture_of(numbered_planes(number % 64, (96, 64)))


def write(folder: Path, speech: AudioInfo, encoding: Encoding, stop_at: int = FRAMES, frame_count: int = FRAMES) -> SegmentFolder:
    """Write an output, or as much of it as comes before a frame at which writing is ended."""
    segments = SegmentFolder(folder, {"preset": encoding.preset})
    with SegmentWriter(segments, info_of(), PAL, SpeechEncoder(speech), choose_output(encoding, info_of()), frame_count, Watch()) as writer:
        for number in range(segments.frame_count, frame_count):
            if number == stop_at:
                raise KeyboardInterrupt
            writer.write(picture(number), is_edited=number % 3 == 0)
    return segments


def movie(segments: SegmentFolder, out: Path) -> Path:
    assemble([segment.file for segment in segments.finished], out, info_of(), PAL, choose_output(Encoding(), info_of()))
    return out


def stream(segments: Iterable[Path], out: Path) -> Path:
    """Join segments as a live player does: ftyp and moov once, then the fragments."""
    data = [(path.read_bytes(), read_init_bytes(path)) for path in segments]
    out.write_bytes(data[0][0][: data[0][1]] + b"".join(content[init:] for content, init in data))
    return out


@pytest.mark.parametrize("encoding", [B_FRAMES, NO_B_FRAMES, MANY_THREADS, BIT_RATE, replace(BIT_RATE, thread_count=16)])
def test_stream_of_segments_plays_as_the_finished_movie_does(tmp_path: Path, speech: AudioInfo, encoding: Encoding) -> None:
    segments = write(tmp_path / "segments", speech, encoding)
    paths = [segment.file.path for segment in segments.finished]
    assert [segment.file.frame_count for segment in segments.finished] == [12, 50, 50, 9]
    live, whole = stream(paths, tmp_path / "live.mp4"), movie(segments, tmp_path / "whole.mp4")
    for path in (live, whole):
        frames = decoded(path)
        assert [number_of(plane_view(frame.planes[0])) for frame in frames] == [number % 64 for number in range(FRAMES)]
        assert [(frame.pts or 0) * Fraction(frame.time_base or 0) for frame in frames] == [Fraction(number, 25) for number in range(FRAMES)]
    (live_sound, live_first_s), (whole_sound, whole_first_s) = decoded_sound(live), decoded_sound(whole)
    assert live_first_s == whole_first_s == 0
    assert np.array_equal(live_sound, whole_sound)


def test_every_segment_is_one_fragment_that_begins_with_a_key_frame_and_plays_alone(tmp_path: Path, speech: AudioInfo) -> None:
    for segment in write(tmp_path / "segments", speech, B_FRAMES).finished:
        data = segment.file.path.read_bytes()
        position, names = 0, []
        while position < len(data):
            size, name = struct.unpack(">I4s", data[position : position + 8])
            names.append(name.decode())
            position += size
        assert names == ["ftyp", "moov", "moof", "mdat"]
        frames = decoded(segment.file.path)
        assert frames[0].key_frame and len(frames) == segment.file.frame_count


def test_scene_cut_inside_a_segment_starts_no_fragment_of_its_own(tmp_path: Path, speech: AudioInfo) -> None:
    segments = SegmentFolder(tmp_path / "segments", {})
    noise = np.random.default_rng(1)
    output = choose_output(Encoding(preset="veryfast", thread_count=1), info_of())
    with SegmentWriter(segments, info_of(), PAL, SpeechEncoder(speech), output, 62, Watch()) as writer:
        for number in range(62):
            planes = [noise.integers(0, 256, shape, np.uint8) for shape in ((64, 96), (32, 48), (32, 48))] if number == 42 else None
            writer.write(picture(number) if planes is None else picture_of(planes), is_edited=False)
    data = segments.finished[1].file.path.read_bytes()
    assert data.count(b"moof") == 1
    assert len(decoded(segments.finished[1].file.path)) == 50


@pytest.mark.parametrize("encoding", [B_FRAMES, NO_B_FRAMES, MANY_THREADS, BIT_RATE, replace(BIT_RATE, thread_count=16)])
@pytest.mark.parametrize("stop_at", [3, 12, 13, 61, 62, 120])
def test_output_is_the_same_bits_wherever_it_was_begun_again(tmp_path: Path, speech: AudioInfo, encoding: Encoding, stop_at: int) -> None:
    whole = movie(write(tmp_path / "at once", speech, encoding), tmp_path / "at once.mp4")
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "twice", speech, encoding, stop_at)
    kept = finished_segments(tmp_path / "twice")
    assert len(kept) == (stop_at + 38) // 50
    stamps = [segment.file.path.stat().st_mtime_ns for segment in kept]
    segments = write(tmp_path / "twice", speech, encoding)
    assert [segment.file.path.stat().st_mtime_ns for segment in kept] == stamps, "no segment is rendered twice"
    for one, other in itertools.zip_longest(sorted((tmp_path / "at once").iterdir()), sorted((tmp_path / "twice").iterdir())):
        assert (one.name, one.read_bytes()) == (other.name, other.read_bytes())
    assert movie(segments, tmp_path / "twice.mp4").read_bytes() == whole.read_bytes()
    assert np.array_equal(segments.edited(), np.arange(FRAMES) % 3 == 0)
    assert segments.passed_through_count == FRAMES - (FRAMES + 2) // 3


@pytest.mark.parametrize("size_wh", [(96, 64), (400, 300), (854, 480)])
def test_encoder_gives_the_same_bits_every_time_at_any_width(tmp_path: Path, speech: AudioInfo, size_wh: tuple[int, int]) -> None:
    """x264's AVX-512 code did not, where the width is an uneven number of macroblocks."""
    info, noise = info_of(size_wh=size_wh), np.random.default_rng(1)
    coarse = noise.integers(0, 256, (size_wh[1] // 4, size_wh[0] // 4), np.uint8)
    luma = np.kron(coarse, np.ones((4, 4), np.uint8))
    luma = np.pad(luma, ((0, size_wh[1] - luma.shape[0]), (0, size_wh[0] - luma.shape[1])))
    chroma = np.full((size_wh[1] // 2, size_wh[0] // 2), 128, np.uint8)
    digests = set()
    for attempt in range(4):
        segments = SegmentFolder(tmp_path / str(attempt), {})
        with SegmentWriter(segments, info, PAL, SpeechEncoder(speech), choose_output(B_FRAMES, info), 25, Watch()) as writer:
            for number in range(25):
                writer.write(picture_of([np.roll(luma, 2 * number, 1), chroma, chroma]), is_edited=False)
        digests.add(segments.finished[0].file.path.read_bytes())
    assert len(digests) == 1


@pytest.mark.parametrize("speech_s", [0.05, 1.0, 7.0])
def test_speech_shorter_or_longer_than_the_pictures_is_whole_and_in_its_place(tmp_path: Path, speech_s: float) -> None:
    speech = read_speech(write_speech(tmp_path / "speech.wav", speech_s)).info
    segments = write(tmp_path / "segments", speech, B_FRAMES)
    live = stream([segment.file.path for segment in segments.finished], tmp_path / "live.mp4")
    for path in (movie(segments, tmp_path / "out.mp4"), live):
        sound, first_s = decoded_sound(path)
        assert first_s == 0
        assert speech_s * SPEECH_RATE_HZ <= len(sound) <= speech_s * SPEECH_RATE_HZ + 2 * 1024
        assert len(decoded(path)) == FRAMES


@pytest.mark.parametrize("encoding", [B_FRAMES, MANY_THREADS])
@pytest.mark.parametrize("frame_count", [1, 2, 8, 11, 12, 13, 16, 17, 62, 66, 67, 116])
def test_any_number_of_frames_gives_segments_that_meet(tmp_path: Path, speech: AudioInfo, frame_count: int, encoding: Encoding) -> None:
    """A handful of frames at the end would have another delay in x264; they join the segment before."""
    segments = write(tmp_path / "segments", speech, encoding, frame_count=frame_count)
    counts = [segment.file.frame_count for segment in segments.finished]
    assert sum(counts) == frame_count and max(counts) <= 54 and (len(counts) == 1 or min(counts) > 4)
    live = stream([segment.file.path for segment in segments.finished], tmp_path / "live.mp4")
    for path in (movie(segments, tmp_path / "out.mp4"), live):
        frames = decoded(path)
        assert [number_of(plane_view(frame.planes[0])) for frame in frames] == [number % 64 for number in range(frame_count)]
        assert [(frame.pts or 0) * Fraction(frame.time_base or 0) for frame in frames] == [Fraction(number, 25) for number in range(frame_count)]


def test_leaving_keeps_the_segment_that_was_just_completed(tmp_path: Path, speech: AudioInfo) -> None:
    segments, watch = SegmentFolder(tmp_path / "segments", {}), Watch()
    written = 0
    output = choose_output(NO_B_FRAMES, info_of())
    with pytest.raises(RenderInterrupted), SegmentWriter(segments, info_of(), PAL, SpeechEncoder(speech), output, FRAMES, watch) as writer:
        for number in range(FRAMES):
            if number == 30:
                watch.leave_at_checkpoint()
            writer.write(picture(number), is_edited=False)
            written += 1
    assert written == 61, "the write that completed the second segment raised"
    assert [segment.file.frame_count for segment in finished_segments(tmp_path / "segments")] == [12, 50]


@pytest.mark.parametrize("encoding", [B_FRAMES, MANY_THREADS])
def test_segment_that_cannot_be_put_in_place_leaves_nothing_open(
    tmp_path: Path, speech: AudioInfo, encoding: Encoding, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise StorageFull("There is no space left; free some.")

    monkeypatch.setattr(SegmentFolder, "add", full)
    with pytest.raises(StorageFull) as raised:
        write(tmp_path / "segments", speech, encoding)
    assert not [file for file in psutil.Process().open_files() if file.path.startswith(str(tmp_path / "segments"))], raised.value
    assert not list((tmp_path / "segments").glob("*.partial"))


def test_segments_of_another_plan_and_what_a_crash_left_are_deleted(tmp_path: Path, speech: AudioInfo) -> None:
    folder = tmp_path / "segments"
    write(folder, speech, NO_B_FRAMES)
    (folder / "00007.mp4.partial").touch()
    (folder / "00008.partial").touch()
    assert len(SegmentFolder(folder, {"preset": "ultrafast"}).finished) == 4
    assert not list(folder.glob("*.partial"))
    assert SegmentFolder(folder, {"preset": "veryfast"}).finished == []
    assert [path.name for path in folder.iterdir()] == ["plan.json"]
    (folder / "plan.json").write_text("{ half a")
    assert SegmentFolder(folder, {"preset": "veryfast"}).finished == []


def test_folder_that_is_gone_has_no_segments(tmp_path: Path, speech: AudioInfo) -> None:
    folder = tmp_path / "segments"
    write(folder, speech, NO_B_FRAMES)
    shutil.rmtree(folder)
    assert finished_segments(folder) == []
