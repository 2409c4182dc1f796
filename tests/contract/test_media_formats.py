"""Every codec in every container it goes into: exact pictures, clock and sound, the same bits however often begun again; the rest refused."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from deploy.demo.clip import make_clip
from orchestrator.errors import InvalidOption
from orchestrator.media.assembly import assemble, read_init_bytes
from orchestrator.media.audio import AudioInfo, read_speech
from orchestrator.media.clock import OutputClock
from orchestrator.media.encoding import Encoding
from orchestrator.media.formats import CODECS, CONTAINERS, CodecName, ContainerName, is_live
from orchestrator.media.light import Light
from orchestrator.media.output import Output, choose_output
from orchestrator.media.planes import plane_view
from orchestrator.media.probe import ColourTags, VideoInfo, probe_video
from orchestrator.media.sound import SpeechEncoder
from orchestrator.pipeline.options import RenderOptions
from orchestrator.pipeline.plan import plan_render
from orchestrator.pipeline.segments import SegmentFolder, SegmentWriter
from orchestrator.pipeline.watch import Watch
from preprocess.orientation import Orientation
from tests.clips import (
    decoded,
    decoded_sound,
    frames_of,
    in_colour,
    info_of,
    number_of,
    numbered_planes,
    picture_of,
    planes_of,
    write_speech,
    write_video,
)

RATE = Fraction(4)
"""At which a segment has 8 pictures, the fewest there are."""

FRAMES = 21
"""Two segments, and five pictures that are the third."""

COMBINATIONS = [(codec, container) for codec in CODECS for container in CODECS[codec].containers]


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> AudioInfo:
    path = tmp_path_factory.mktemp("speech") / "speech.wav"
    return read_speech(write_speech(path, float(FRAMES / RATE))).info


def write(folder: Path, info: VideoInfo, speech: AudioInfo, encoding: Encoding, frame_count: int = FRAMES, stop_at: int = -1) -> SegmentFolder:
    segments, output = SegmentFolder(folder, {}), choose_output(encoding, info)
    with SegmentWriter(
        segments, info, OutputClock.constant(info.frame_rate), SpeechEncoder(speech, sound=output.sound), output, frame_count, Watch()
    ) as writer:
        for number in range(segments.frame_count, frame_count):
            if number == stop_at:
                raise KeyboardInterrupt
            planes = numbered_planes(number % 64, info.working_size_wh, info.working_pix_fmt)
            writer.write(picture_of(planes, info.working_pix_fmt), is_edited=False)
    return segments


def write_pictures(folder: Path, info: VideoInfo, speech: AudioInfo, encoding: Encoding, pictures: Sequence[av.VideoFrame]) -> SegmentFolder:
    segments, output = SegmentFolder(folder, {}), choose_output(encoding, info)
    clock = OutputClock.constant(info.frame_rate)
    with SegmentWriter(segments, info, clock, SpeechEncoder(speech, sound=output.sound), output, len(pictures), Watch()) as writer:
        for picture in pictures:
            writer.write(picture, is_edited=False)
    return segments


def movie(segments: SegmentFolder, info: VideoInfo, encoding: Encoding) -> Path:
    output = choose_output(encoding, info)
    out = segments.path.with_suffix(output.container.suffixes[0])
    assemble([segment.file for segment in segments.finished], out, info, OutputClock.constant(info.frame_rate), output)
    return out


def numbers(pictures: list[av.VideoFrame]) -> list[int]:
    return [number_of(plane_view(picture.reformat(format="yuv420p").planes[0])) for picture in pictures]


@pytest.mark.parametrize(("codec", "container"), COMBINATIONS)
def test_pictures_clock_and_sound_are_exact_and_the_bits_the_same_when_begun_again(
    tmp_path: Path, speech: AudioInfo, codec: CodecName, container: ContainerName
) -> None:
    square = container in ("webm", "mkv") and not CODECS[codec].stores_pixel_shape
    info = info_of(frame_rate=RATE, orientation=Orientation(90), sample_aspect_ratio=Fraction(1) if square else Fraction(4, 3))
    encoding = Encoding(codec=codec, container=container, thread_count=2)
    segments = write(tmp_path / "once", info, speech, encoding)
    out = movie(segments, info, encoding)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "twice", info, speech, encoding, stop_at=19)
    assert movie(write(tmp_path / "twice", info, speech, encoding), info, encoding).read_bytes() == out.read_bytes()
    files = [segment.file.path for segment in segments.finished]
    assert [segment.file.frame_count for segment in segments.finished] == [8, 8, 5]
    played = [out]
    if is_live(CODECS[codec], container):
        live = tmp_path / f"live{out.suffix}"
        live.write_bytes(b"".join(file.read_bytes()[read_init_bytes(file) if file != files[0] else 0 :] for file in files))
        played.append(live)
    for path in played:
        pictures = decoded(path)
        assert numbers(pictures) == list(range(FRAMES))
        assert [(picture.pts or 0) * Fraction(picture.time_base or 0) for picture in pictures] == [number / RATE for number in range(FRAMES)]
        sound, first_s = decoded_sound(path)
        assert first_s == 0
        with av.open(str(path)) as file:
            rate_hz = file.streams.audio[0].codec_context.sample_rate
            assert path.suffix not in (".mov", ".mp4") or file.streams.audio[0].codec_context.layout.name == "mono"
        assert FRAMES / RATE * rate_hz <= len(sound) <= FRAMES / RATE * rate_hz + 2 * 1024
    found = probe_video(out)
    assert (found.orientation, found.frame_rate, found.size_wh, found.colour) == (Orientation(90), RATE, (96, 64), ColourTags(1, 1, 1, 1))
    assert found.sample_aspect_ratio == info.sample_aspect_ratio


@pytest.mark.parametrize("codec", [name for name, row in CODECS.items() if name != "h264"])
@pytest.mark.parametrize("frame_count", [1, 2, 13])
def test_any_number_of_pictures_can_be_written(tmp_path: Path, speech: AudioInfo, codec: CodecName, frame_count: int) -> None:
    """x265 leaves the decoding times of one or two pictures unset."""
    info, encoding = info_of(frame_rate=RATE), Encoding(codec=codec)
    pictures = decoded(movie(write(tmp_path / "segments", info, speech, encoding, frame_count), info, encoding))
    assert numbers(pictures) == list(range(frame_count))
    assert [(picture.pts or 0) * Fraction(picture.time_base or 0) for picture in pictures] == [number / RATE for number in range(frame_count)]


@pytest.mark.parametrize("codec", ["hevc", "av1", "vp9", "prores_4444", "ffv1"])
def test_bits_do_not_depend_on_the_number_of_threads(tmp_path: Path, speech: AudioInfo, codec: CodecName) -> None:
    info = info_of(frame_rate=RATE, size_wh=(400, 304))
    outs = []
    for threads in (1, 3):
        encoding = Encoding(codec=codec, thread_count=threads)
        outs.append(movie(write(tmp_path / str(threads), info, speech, encoding, 9), info, encoding).read_bytes())
    assert outs[0] == outs[1]


LOSSLESS: list[tuple[CodecName, str]] = [
    *(("h264", pix_fmt) for pix_fmt in ("yuv420p", "yuvj420p", "yuv422p", "yuv444p")),
    *(("hevc", pix_fmt) for pix_fmt in ("yuv420p", "yuvj420p", "yuv444p")),
    ("av1", "yuv420p"),
    ("av1", "yuvj420p"),
    *(("vp9", pix_fmt) for pix_fmt in ("yuv420p", "yuvj420p", "yuv422p")),
    *(("ffv1", pix_fmt) for pix_fmt in ("yuv420p", "yuvj420p", "yuv444p")),
]


@pytest.mark.parametrize(("codec", "pix_fmt"), LOSSLESS)
def test_lossless_keeps_every_sample(tmp_path: Path, speech: AudioInfo, codec: CodecName, pix_fmt: str) -> None:
    full_range = pix_fmt.startswith("yuvj")
    info = info_of(frame_rate=RATE, pix_fmt=pix_fmt, colour=ColourTags(2 if full_range else 1, 1, 1, 1))
    encoding = Encoding(codec=codec, lossless=True)
    out = movie(write(tmp_path / "segments", info, speech, encoding, 9), info, encoding)
    for number, picture in enumerate(decoded(out)):
        for actual, expected in zip(planes_of(picture), numbered_planes(number, (96, 64), pix_fmt), strict=True):
            assert np.array_equal(actual, expected)
    assert probe_video(out).is_full_range == full_range


@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("codec", ["prores", "prores_4444"])
def test_master_formats_keep_the_pictures_levels_and_say_what_was_converted(
    tmp_path: Path, speech: AudioInfo, codec: CodecName, full_range: bool
) -> None:
    """ProRes has limited range only, and FFmpeg's decoder says so of every file."""
    info, encoding = info_of(frame_rate=RATE, colour=ColourTags(2 if full_range else 1, 1, 1, 1)), Encoding(codec=codec)
    output = choose_output(encoding, info)
    assert [note for note in output.notes if "yuv420p was converted to yuv4" in note and "10le" in note]
    assert any("full range was converted" in note for note in output.notes) == full_range
    pictures = list(decoded(movie(write(tmp_path / "s", info, speech, encoding, 3), info, encoding)))
    assert {picture.color_range for picture in pictures} == {1}
    luma = [plane_view(picture.reformat(format="yuv420p").planes[0]) for picture in pictures]
    for number, samples in enumerate(luma):
        source = numbered_planes(number, (96, 64))[0]
        difference = samples - (16 + source * (219 / 255) if full_range else source.astype(float))
        assert np.abs(difference).max() <= 6 and abs(difference.mean()) < 0.3


def video_bytes(segments: SegmentFolder) -> int:
    """Return how many bytes the pictures of the finished segments take."""
    total = 0
    for segment in segments.finished:
        with av.open(str(segment.file.path)) as file:
            total += sum(packet.size for packet in file.demux(video=0))
    return total


@pytest.mark.parametrize("codec", ["h264", "hevc", "av1", "vp9"])
def test_bit_rate_is_met_and_quality_changes_the_size(tmp_path: Path, speech: AudioInfo, codec: CodecName) -> None:
    info, noise = info_of(size_wh=(256, 144)), np.random.default_rng(1)
    still = np.kron(noise.integers(0, 256, (18, 32), np.uint8), np.ones((8, 8), np.uint8))
    grain = [noise.integers(-12, 12, still.shape) for _ in range(5)]
    chroma = np.full((72, 128), 128, np.uint8)

    def size_bytes(encoding: Encoding) -> int:
        segments, output = SegmentFolder(tmp_path / str(hash(encoding)), {}), choose_output(encoding, info)
        with SegmentWriter(
            segments, info, OutputClock.constant(info.frame_rate), SpeechEncoder(speech, sound=output.sound), output, 50, Watch()
        ) as writer:
            for number in range(50):
                writer.write(picture_of([np.clip(still + grain[number % 5], 0, 255).astype(np.uint8), chroma, chroma]), is_edited=False)
        return video_bytes(segments)

    base = Encoding(codec=codec, preset="ultrafast", thread_count=2)
    bits_per_s = 8 * size_bytes(replace(base, bitrate=400_000)) / 2
    assert 360_000 < bits_per_s < 600_000
    assert size_bytes(replace(base, crf=20)) > 1.3 * size_bytes(replace(base, crf=40))


@pytest.fixture(scope="module")
def still_person(tmp_path_factory: pytest.TempPathFactory) -> list[av.VideoFrame]:
    """10 s of a face that moves a little before a background that stands still to the sample, as decoded video has it."""
    path = tmp_path_factory.mktemp("still")
    make_clip(path / "clip.mp4", 1)
    first = cv2.bilateralFilter(next(frames_of(path / "clip.mp4")).to_ndarray(format="rgb24"), 9, 30, 5)
    face = np.s_[160:480, 160:480]

    def moved(number: int) -> NDArray[np.uint8]:
        picture, matrix = np.array(first, np.uint8), np.array([[1.0, 0, 3 * np.sin(number / 12)], [0, 1.0, 2 * np.sin(number / 17)]])
        picture[face] = cv2.warpAffine(first, matrix, (640, 640), borderMode=cv2.BORDER_REFLECT)[face]
        return picture

    return decoded(write_video(path / "still.mp4", map(moved, range(250)), {"crf": "23", "preset": "veryfast"}))


@pytest.mark.parametrize(
    ("codec", "threads", "least"), [("h264", 2, 0.85), ("h264", 16, 0.7), ("hevc", 2, 0.75), ("hevc", 16, 0.65), ("av1", 2, 0.5), ("vp9", 2, 0.75)]
)
def test_bit_rate_of_a_person_who_sits_still_is_met_in_segments(
    tmp_path: Path, speech: AudioInfo, still_person: list[av.VideoFrame], codec: CodecName, threads: int, least: float
) -> None:
    """An encoder that begins anew with each segment stays below: at 35 to 75 % of what it is told."""
    info, bitrate = info_of(size_wh=(640, 640)), 1_500_000
    output = choose_output(Encoding(codec=codec, preset="veryfast", bitrate=bitrate, thread_count=threads), info)
    segments = SegmentFolder(tmp_path / "segments", {})
    sound = SpeechEncoder(speech, sound=output.sound)
    with SegmentWriter(segments, info, OutputClock.constant(info.frame_rate), sound, output, len(still_person), Watch()) as writer:
        for picture in still_person:
            writer.write(picture, is_edited=False)
    assert least < 8 * video_bytes(segments) / 10 / bitrate < 1.1
    settled = segments.finished[3:-1]
    assert least < 8 * sum(one.file.picture_bytes for one in settled) / float(sum(one.duration_s for one in settled)) / bitrate < 1.35


def test_no_encoder_takes_the_cores_from_other_processes(tmp_path: Path, speech: AudioInfo) -> None:
    """As root SVT-AV1 makes itself, and who opens it, real-time threads; elsewhere it cannot, and there is nothing to see."""
    info = info_of(size_wh=(64, 64))
    output = choose_output(Encoding(codec="av1", preset="ultrafast"), info)
    sound, chroma = SpeechEncoder(speech, sound=output.sound), np.zeros((32, 32), np.uint8)
    black = [np.zeros((64, 64), np.uint8), chroma, chroma]
    with SegmentWriter(SegmentFolder(tmp_path / "segments", {}), info, OutputClock.constant(info.frame_rate), sound, output, 8, Watch()) as writer:
        for _ in range(7):
            writer.write(picture_of(black), is_edited=False)
        threads = [int(task.name) for task in Path("/proc/self/task").iterdir()]
        assert len(threads) > 8, "the encoder is at work"
        assert {os.sched_getscheduler(thread) for thread in threads} == {os.SCHED_OTHER}
        writer.write(picture_of(black), is_edited=False)


def refused() -> Iterator[tuple[dict[str, object], str]]:
    for codec, row in CODECS.items():
        for container in CONTAINERS:
            if container not in row.containers:
                yield {"codec": codec, "container": container}, f"{container} takes"
    yield {"codec": "prores", "crf": 20}, "one quality"
    yield {"codec": "ffv1", "bitrate": 1_000_000}, "no bit rate"
    yield {"codec": "prores", "lossless": True}, "cannot be lossless; give h264"
    yield {"codec": "prores", "preset": "fast"}, "no presets"
    yield {"codec": "h264", "crf": 52}, "0 .best. to 51"
    yield {"codec": "h264", "crf": -1}, "0 .best. to 51"
    yield {"codec": "av1", "crf": 64}, "0 .best. to 63"
    yield {"codec": "vp9", "encoder": "nvenc"}, "give h264, hevc, av1"
    yield {"crf": 20, "bitrate": 1_000_000}, "exclude each other"
    yield {"lossless": True, "crf": 20}, "exclude each other"
    yield {"lossless": True, "encoder": "nvenc"}, "not used for lossless"
    yield {"bitrate": 10}, "give 50000"
    yield {"codec": "mpeg2"}, "give one of h264"
    yield {"container": "avi"}, "give one of mp4"
    yield {"preset": "quick"}, "veryfast"


@pytest.mark.parametrize(("values", "sentence"), list(refused()))
def test_what_does_not_go_together_is_refused_with_what_does(values: dict[str, object], sentence: str) -> None:
    with pytest.raises(InvalidOption, match=sentence):
        Encoding(**values)  # type: ignore[arg-type]


def test_what_the_source_does_not_allow_is_refused_with_what_it_does() -> None:
    with pytest.raises(InvalidOption, match="give h264 or hevc or vp9 or ffv1"):
        choose_output(Encoding(codec="av1", lossless=True), info_of(pix_fmt="yuv444p"))
    wide = info_of(sample_aspect_ratio=Fraction(4, 3))
    with pytest.raises(InvalidOption, match=r"not square.* give mp4 as the container\.$"):
        choose_output(Encoding(codec="vp9"), wide)
    with pytest.raises(InvalidOption, match=r"not square.* give mp4 as the container or codec h264 or hevc\.$"):
        choose_output(Encoding(codec="vp9", container="mkv"), wide)


def test_pixels_that_are_not_quite_square_are_shown_square_where_the_file_cannot_tell_them() -> None:
    """A video of 720x974 that FFmpeg scaled to a width of 320 has them."""
    scaled = info_of(sample_aspect_ratio=Fraction(486, 487))
    [note] = choose_output(Encoding(codec="vp9"), scaled).notes
    assert "not quite square (486/487)" in note and "shown square" in note
    assert not choose_output(Encoding(codec="h264"), scaled).notes


def test_nvenc_is_tried_and_software_taken_only_where_that_was_asked_for() -> None:
    found = choose_output(Encoding(encoder="auto"), info_of())
    if found.encoder.name == "h264_nvenc":
        pytest.skip("this machine encodes with NVENC")
    assert found.encoder.name == "libx264"
    assert found.notes == choose_output(Encoding(encoder="auto"), info_of()).notes
    assert "NVENC cannot encode H.264 here" in found.notes[0] and "libx264 did" in found.notes[0]
    with pytest.raises(InvalidOption, match="NVENC cannot encode HEVC here"):
        choose_output(Encoding(codec="hevc", encoder="nvenc"), info_of())


GRADED = "master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50):max-cll=1000,400"


@pytest.fixture(scope="module")
def graded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """HDR10, as x265's own tool describes it: a P3 display of 0.005 to 1000 cd/m2, light up to 1000 and 400."""
    path = tmp_path_factory.mktemp("graded") / "graded.mp4"
    pictures = (picture_of(numbered_planes(number, (96, 64)), "yuv420p").reformat(format="yuv420p10le") for number in range(9))
    options = {"x265-params": f"log-level=error:lossless=1:{GRADED}"}
    return write_video(path, pictures, options, codec="libx265", pix_fmt="yuv420p10le", set_up=in_colour((1, 9, 16, 9)))


@pytest.mark.parametrize(("codec", "container"), [("hevc", "mp4"), ("hevc", "mkv"), ("h264", "mov"), ("av1", "webm"), ("ffv1", "mkv")])
def test_mastering_display_and_light_level_are_in_every_segment_or_said_to_be_lost(
    codec: CodecName, container: ContainerName, graded: Path, speech: AudioInfo, tmp_path: Path
) -> None:
    info, encoding = probe_video(graded), Encoding(codec=codec, container=container, thread_count=2)
    is_told = any("mastering display and light level are left out" in note for note in choose_output(encoding, info).notes)
    pictures = decoded(graded)
    segments = write_pictures(tmp_path / "out", info, speech, encoding, pictures)
    files = [movie(segments, info, encoding), segments.finished[0].file.path]
    for light in (Light.of(decoded(path)[0]) for path in files):
        assert is_told is (light is None) is (codec == "ffv1")
        if light is not None and light.display is not None:
            places = [float(value) for place in light.display.primaries for value in place]
            assert places == pytest.approx([0.68, 0.32, 0.265, 0.69, 0.15, 0.06, 0.3127, 0.329], abs=1e-4)
            assert [float(value) for value in light.display.luminance] == pytest.approx([0.005, 1000], rel=0.01)
            assert light.level == (1000, 400)
    assert info.light is not None and info.light.display is not None and info.as_sdr.light is None


def test_source_with_ten_bits_becomes_hevc_unless_a_codec_is_asked_for(graded: Path, tmp_path: Path) -> None:
    speech = write_speech(tmp_path / "speech.wav", 0.2)

    def output(**asked: object) -> Output:
        return plan_render(graded, speech, tmp_path / "out.mp4", RenderOptions.model_validate(asked)).output

    assert (output().encoder.name, output().pix_fmt) == ("libx265", "yuv420p10le")
    assert any("plays in few players" in note for note in output(codec="h264").notes)
    assert output(hdr="sdr").encoder.name == "libx264" and output(hdr="sdr").pix_fmt == "yuv420p"
