"""Exotic, odd and broken files: each becomes a correct video or one of our errors, whatever is done to it."""

import random
import struct
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from PIL import Image

from orchestrator.errors import EmptyStream, InputError, LimitExceeded, UnreadableMedia
from orchestrator.media import limits
from orchestrator.media.audio import read_samples, read_speech, speech_samples
from orchestrator.media.foreseen import foresee_frames
from orchestrator.media.limits import summarise
from orchestrator.media.mix import Background, SoundPiece, mixed
from orchestrator.media.probe import probe_video
from orchestrator.media.reader import VideoReader
from orchestrator.media.webp import MAX_BYTES, Animation
from orchestrator.pipeline.options import RenderOptions
from orchestrator.pipeline.plan import plan_render
from tests.clips import Clip, Sound, make_clip, make_sound, number_of, numbered_planes, planes_of, write_wav
from tests.contract.test_media_audio import onsets_s
from tests.contract.test_media_reader import index_of
from tests.contract.test_time import output, seen
from tests.debian import run_ffmpeg

B_FRAMES = {"preset": "veryfast", "qp": "0", "x264-params": "b-adapt=0:scenecut=0"}


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_sound(tmp_path_factory.mktemp("speech") / "speech.wav", Sound(duration_s=Fraction(8, 5)))


def grey(number: int) -> np.ndarray:
    return np.repeat(numbered_planes(number, (96, 64))[0][:, :, None], 3, 2)


def animation(path: Path, durations_ms: list[int]) -> Path:
    """Write an animated picture with OpenCV, frames numbered from 0."""
    moving = cv2.Animation()
    moving.frames = [grey(number) for number in range(len(durations_ms))]
    moving.durations = durations_ms
    assert cv2.imwriteanimation(str(path), moving, [cv2.IMWRITE_WEBP_QUALITY, 101])  # lossless
    return path


@pytest.mark.parametrize(
    "name", ["face.png", "face.jpg", "face.webp", "face.bmp", "face.tiff", "face.avif", "face.mp4", "face.mkv", "face.avi", "face.ts"]
)
def test_one_picture_in_any_file_is_a_still(name: str, speech: Path, tmp_path: Path) -> None:
    path = tmp_path / name
    if path.suffix in (".mp4", ".mkv", ".avi", ".ts"):
        make_clip(path, Clip(frame_count=1))
    else:
        assert cv2.imwrite(str(path), grey(0))
    info = probe_video(path)
    assert info.is_still and info.frame_rate == 25
    output(path, read_speech(speech).info, RenderOptions(), tmp_path / "out.mp4")
    assert [number for _, number in seen(tmp_path / "out.mp4")] == [0] * 40


@pytest.mark.parametrize("kind", ["exr", "dpx", "ico", "jls", "pbm", "pcx", "pgmyuv", "ras", "sgi", "xbm", "xwd", "tga", "jp2", "qoi", "pam"])
def test_pictures_of_studios_and_old_systems_are_stills(kind: str, tmp_path: Path) -> None:
    assert cv2.imwrite(str(tmp_path / "source.png"), grey(37))
    run_ffmpeg("-i", tmp_path / "source.png", "-frames:v", 1, "-update", 1, tmp_path / f"face.{kind}")
    info = probe_video(tmp_path / f"face.{kind}")
    assert info.is_still and info.size_wh == (96, 64)
    with VideoReader(info) as reader:
        assert [number_of(planes_of(frame.picture)[0]) for frame in reader.decode_from_start()] == [37]


@pytest.mark.parametrize(("name", "options"), [("clip.wtv", []), ("clip.swf", []), ("clip.dnxhd", ["-s", "1920x1080", "-b:v", "120M"])])
def test_videos_of_recorders_are_read_as_ffmpegs_own_program_has_them(name: str, options: list[str], tmp_path: Path) -> None:
    source = make_clip(tmp_path / "source.mkv", Clip(frame_count=20, size_wh=(192, 128)))
    run_ffmpeg("-i", source, *options, tmp_path / name)
    info = probe_video(tmp_path / name)
    assert not info.is_still and info.frame_rate == 25
    with VideoReader(info) as reader:
        assert [number_of(planes_of(frame.picture)[0]) for frame in reader.decode_from_start()] == [*range(20)]


@pytest.mark.parametrize(
    ("name", "options"),
    [("a.adx", []), ("a.ast", []), ("a.sbc", []), ("a.aptx", ["-ac", "2"]), ("a.sf", ["-f", "ircam"]), ("a.spdif", ["-f", "spdif", "-c:a", "ac3"])],
)
def test_sound_of_players_and_cables_is_heard_when_ffmpegs_own_program_has_it(name: str, options: list[str], tmp_path: Path) -> None:
    source = make_sound(tmp_path / "source.wav", Sound(sample_rate_hz=48_000, clicks_s=(Fraction(1, 4), Fraction(3, 4))))
    run_ffmpeg("-i", source, *options, tmp_path / name)
    run_ffmpeg("-i", tmp_path / name, tmp_path / "judge.wav")
    heard, expected = read_speech(tmp_path / name), read_speech(tmp_path / "judge.wav")
    assert heard.info.duration_s == expected.info.duration_s and heard.info.sample_rate_hz == 48_000
    found, wanted = (onsets_s(np.concatenate(list(read_samples(of.info.path, "mono", 16_000)), 1)[0]) for of in (heard, expected))
    assert len(found) == 2
    np.testing.assert_allclose(found, wanted, atol=0.002)


def test_picture_of_floats_that_begins_at_the_bottom_is_the_right_way_up(tmp_path: Path) -> None:
    """PFM, written by OpenCV: Debian's FFmpeg writes and reads it upside down."""
    assert cv2.imwrite(str(tmp_path / "face.pfm"), (grey(37) / 255).astype(np.float32))
    with VideoReader(probe_video(tmp_path / "face.pfm")) as reader:
        assert [number_of(planes_of(frame.picture)[0]) for frame in reader.decode_from_start()] == [37]


def test_sphere_of_speech_corpora_is_read(tmp_path: Path) -> None:
    """NIST SPHERE: a header of text, then samples."""
    samples = Sound().samples()
    fields = f"channel_count -i 1\nsample_rate -i 16000\nsample_n_bytes -i 2\nsample_count -i {len(samples)}\nsample_byte_format -s2 01\n"
    header = f"NIST_1A\n   1024\n{fields}sample_coding -s3 pcm\nend_head\n".encode().ljust(1024, b"\n")
    (tmp_path / "speech.sph").write_bytes(header + (samples * 32767).astype("<i2").tobytes())
    info = read_speech(tmp_path / "speech.sph").info
    assert (info.sample_rate_hz, info.channel_count, info.duration_s) == (16_000, 1, Fraction(1))


@pytest.mark.parametrize("name", ["face.gif", "face.png", "face.webp"])
def test_animated_picture_is_a_video_in_its_own_time(name: str, speech: Path, tmp_path: Path) -> None:
    path = animation(tmp_path / name, [100, 200, 100, 100, 300, 100])
    output(path, read_speech(speech).info, RenderOptions(frame_rate="20", sync_mode="loop"), tmp_path / "out.mp4")
    expected = [0] * 2 + [1] * 4 + [2] * 2 + [3] * 2 + [4] * 6 + [5] * 2
    assert [number for _, number in seen(tmp_path / "out.mp4")] == (expected * 2)[:32]


def test_frames_of_animated_webp_are_found_again_by_number(tmp_path: Path) -> None:
    info = probe_video(animation(tmp_path / "face.webp", [100, 200, 5, 0, 300, 100]))
    index = index_of(info)
    assert (info.container, info.expected_frame_count, index.pts.tolist()) == ("webp", 6, [0, 100, 300, 400, 500, 800])
    with VideoReader(info) as reader:
        backwards = [number_of(planes_of(frame.picture)[0]) for frame in reader.decode_order(index, np.arange(5, -1, -1))]
    assert backwards == [5, 4, 3, 2, 1, 0]


def test_animated_webp_that_says_that_it_has_no_alpha_is_a_video_too(tmp_path: Path) -> None:
    pictures = [Image.new("RGB", (96, 64), (40 * number,) * 3) for number in range(6)]  # where only a part changes, the rest is transparent
    pictures[0].save(tmp_path / "opaque.webp", save_all=True, append_images=pictures[1:], duration=100, quality=100)
    assert not (tmp_path / "opaque.webp").read_bytes()[20] & 0x10, "as its flags say"
    info = probe_video(tmp_path / "opaque.webp")
    assert (info.container, info.has_alpha, info.working_pix_fmt, info.frame_rate) == ("webp", False, "yuv420p", Fraction(10))
    with VideoReader(info) as reader:
        lumas = [float(planes_of(frame.picture)[0].mean()) for frame in reader.decode_from_start()]
    assert lumas == pytest.approx([16 + 219 * 40 * number / 255 for number in range(6)], abs=2)


def webp_of_huge_canvas(data: bytearray) -> None:
    data[24:30] = b"\xff\x3f\x00" * 2  # 16384x16384: a gigabyte a frame


def webp_cut(data: bytearray) -> None:
    del data[len(data) // 2 :]


def webp_damaged(data: bytearray) -> None:
    at = data.rindex(b"VP8L")
    data[at + 16 : at + 32] = b"\xff" * 16


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (webp_of_huge_canvas, LimitExceeded, "16384x16384; scale it down"),
        (webp_cut, UnreadableMedia, "truncated or damaged: frame 1 of"),
        (webp_damaged, UnreadableMedia, "damaged: frame 4 of 4 does not decode"),
    ],
)
def test_bad_animated_webp_is_refused(damage: Callable[[bytearray], None], error: type[InputError], message: str, tmp_path: Path) -> None:
    path = animation(tmp_path / "face.webp", [100] * 4)
    data = bytearray(path.read_bytes())
    damage(data)
    path.write_bytes(data)
    with pytest.raises(error, match=message):
        index_of(probe_video(path))


def test_animated_webp_is_too_large_before_its_chunks_are_looked_for(tmp_path: Path) -> None:
    path = animation(tmp_path / "face.webp", [100] * 2)
    with path.open("r+b") as file:
        file.truncate(MAX_BYTES + 1)  # with empty chunks: 18 s would be spent on as many, each time the file is opened
    with pytest.raises(LimitExceeded, match="animated WebP of more than 256 MiB"):
        Animation.of(path)


def test_photograph_that_ffmpeg_alone_reads_is_shown_as_it_lies(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010F] = "a camera's maker, so that FFmpeg has something to show"
    path = tmp_path / "face.avif"
    Image.fromarray(np.full((96, 128, 3), 120, np.uint8)).save(path, exif=exif)
    data = bytearray(path.read_bytes())
    data[data.index(b"pixi") + 8] = 0  # channels
    path.write_bytes(data)
    with pytest.raises(RuntimeError), Image.open(path) as photograph:
        photograph.load()
    probe_video(path)


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv", "clip.avi", "clip.ts", "clip.gif", "clip.webm", "clip.mov", "clip.jpg", "clip", "clip.wav"])
def test_name_s_end_says_nothing(name: str, speech: Path, tmp_path: Path) -> None:
    path = tmp_path / name
    make_clip(tmp_path / "real.mkv", Clip(b_frames=2, options=B_FRAMES)).rename(path)
    output(path, read_speech(speech).info, RenderOptions(), tmp_path / "out.mp4")
    assert [number for _, number in seen(tmp_path / "out.mp4")] == [*range(30), *range(28, 18, -1)]


def test_edit_list_that_cuts_the_beginning_off_is_heeded_both_ways(tmp_path: Path) -> None:
    """An editor's trim without a new encode: the file has 30 frames, a player shows those from the eleventh on."""
    path = make_clip(tmp_path / "clip.mp4", Clip(b_frames=2, options=B_FRAMES))
    data = bytearray(path.read_bytes())
    at = data.index(b"elst") + 12  # version and flags, number of entries; then length, start and speed of the first
    length, start = struct.unpack(">II", data[at : at + 8])
    data[at : at + 8] = struct.pack(">II", length - 400, start + 10 * 512)
    path.write_bytes(data)
    info = probe_video(path)
    index = index_of(info)
    with VideoReader(info) as reader:
        forwards = [number_of(planes_of(frame.picture)[0]) for frame in reader.decode_from_start()]
        backwards = [number_of(planes_of(frame.picture)[0]) for frame in reader.decode_order(index, np.arange(len(index) - 1, -1, -1))]
    assert forwards == [*range(10, 30)] and backwards == forwards[::-1]


@pytest.mark.parametrize("first_tick", [-30, -12])
def test_mp4_whose_edit_list_leaves_nothing_is_empty_as_for_ffmpegs_own_program(first_tick: int, tmp_path: Path) -> None:
    """Twelve frames that are all before the time at which the file begins to be shown."""
    path = make_clip(tmp_path / "clip.mp4", Clip(frame_count=12, first_tick=first_tick))
    run_ffmpeg("-i", path, "-f", "rawvideo", tmp_path / "judge.raw")
    assert (tmp_path / "judge.raw").stat().st_size == 0
    with pytest.raises(EmptyStream, match="without a single frame"):
        probe_video(path)


@pytest.mark.parametrize("frame_rate", [25, 30])
def test_mp4_whose_frames_all_last_nothing_is_shown_at_the_rate_of_its_header(frame_rate: int, speech: Path, tmp_path: Path) -> None:
    path = make_clip(tmp_path / "clip.mp4", Clip(frame_rate=Fraction(frame_rate)))
    data = bytearray(path.read_bytes())
    at = data.index(b"stts") + 16  # version and flags, number of entries, number of frames; then how long each lasts
    data[at : at + 4] = bytes(4)
    path.write_bytes(data)
    output(path, read_speech(speech).info, RenderOptions(), tmp_path / "out.mp4")
    assert probe_video(tmp_path / "out.mp4").frame_rate == frame_rate
    assert [number for _, number in seen(tmp_path / "out.mp4")][:30] == [*range(30)]


def test_recording_whose_clock_began_long_before_it_is_as_long_as_it_is(tmp_path: Path) -> None:
    assert summarise(make_clip(tmp_path / "clip.mkv", Clip(first_tick=2**31))).duration_s == Fraction(6, 5)


def test_file_that_has_changed_is_looked_at_again_and_one_that_has_not_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_clip(tmp_path / "clip.mkv", Clip())
    first = summarise(path)
    with monkeypatch.context() as closed:
        closed.setattr(limits, "open_media", lambda path: pytest.fail("it is opened again"))
        assert summarise(path) == first
    make_sound(path, Sound("aac", 48_000, sample_format="fltp"))
    assert (first.kind, summarise(path).kind) == ("VIDEO", "AUDIO")
    path.write_bytes(b"no media")
    for _ in range(2):
        with pytest.raises(UnreadableMedia):
            summarise(path)


@pytest.mark.parametrize("sar", [Fraction(1, 100), Fraction(64, 45), Fraction(12, 11), Fraction(255, 1)])
def test_shape_of_pixels_comes_out_as_players_see_it_in_the_source(sar: Fraction, speech: Path, tmp_path: Path) -> None:
    path = make_clip(tmp_path / "clip.mp4", Clip(sample_aspect_ratio=sar))
    output(path, read_speech(speech).info, RenderOptions(), tmp_path / "out.mp4")
    believed = sar if Fraction(1, 10) < sar < 10 else 1  # FFmpeg takes a hundredfold stretch for damage
    assert probe_video(path).sample_aspect_ratio == probe_video(tmp_path / "out.mp4").sample_aspect_ratio == believed


@pytest.mark.parametrize("codec", ["libx264", "mpeg4", "mjpeg"])
@pytest.mark.parametrize("share", [0.3, 0.7, 0.97])
def test_truncated_avi_is_refused(codec: str, share: float, tmp_path: Path) -> None:
    pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    data = make_clip(tmp_path / "clip.avi", Clip(codec=codec, pix_fmt=pix_fmt, options={})).read_bytes()
    assert not probe_video(tmp_path / "clip.avi").is_still
    (tmp_path / "cut.avi").write_bytes(data[: int(len(data) * share)])
    with pytest.raises(UnreadableMedia, match=r"truncated|cannot be read"):
        probe_video(tmp_path / "cut.avi")


@pytest.mark.parametrize("channel_count", [4, 6, 8])
@pytest.mark.parametrize("level", [0.2, 0.9])
def test_many_channels_become_two_without_clipping(channel_count: int, level: float, tmp_path: Path) -> None:
    """All channels sound at once, the worst there is; what would not clip is not turned down."""
    tone = np.tile(level * np.sin(2 * np.pi * 300 * np.arange(24_000) / 48_000)[:, None], (1, channel_count)).astype(np.float32)
    path = write_wav(tmp_path / "many.wav", tone, 48_000)
    info = read_speech(path).info
    loudest = max(float(np.abs(samples).max()) for samples in speech_samples(info, "stereo", 48_000))
    assert loudest <= 1.0
    assert (info.gain == 1.0) == (level == 0.2) or loudest > 0.95
    assert loudest > level


def test_damaged_packets_of_the_speech_are_counted(tmp_path: Path) -> None:
    path = make_sound(tmp_path / "speech.mp4", Sound("aac", 48_000, sample_format="fltp", duration_s=Fraction(20)))
    assert read_speech(path).info.damaged_packet_count == 0
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 60] = random.Random(1).randbytes(60)
    path.write_bytes(data)
    info = read_speech(path).info
    assert 1 <= info.damaged_packet_count <= 3 and info.duration_s > Fraction(198, 10)


def test_sound_of_which_much_is_lost_is_refused_where_only_the_file_has_a_length(tmp_path: Path) -> None:
    path = make_sound(tmp_path / "speech.mka", Sound("aac", 48_000, sample_format="fltp", duration_s=Fraction(20)))
    assert abs(read_speech(path).info.duration_s - 20) < Fraction(1, 10)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(UnreadableMedia, match="truncated"):
        read_speech(path)


@pytest.mark.parametrize("name", ["late.mp4", "late.mkv"])
def test_source_s_own_sound_stays_with_its_pictures_where_these_begin_late(name: str, tmp_path: Path) -> None:
    sound = Sound("aac", 48_000, sample_format="fltp", clicks_s=(Fraction(1, 4), Fraction(3, 4)), duration_s=Fraction(3, 2))
    path = make_clip(tmp_path / name, Clip(first_tick=40), sound, sound_delay_s=Fraction(-1, 2))
    info = probe_video(path)
    assert abs(info.start_s - Fraction(1, 2)) <= Fraction(1024, 48_000) + Fraction(1, 1000), (
        "MP4 counts from the encoder's first sample, which is not heard"
    )
    under = Background(path, 1, 0.0, (SoundPiece(Fraction(0), Fraction(6, 5), Fraction(6, 5)),), repeats=False, pictures_start_s=info.start_s)
    silence = np.zeros((1, 48_000), np.float32)
    heard = np.concatenate(list(mixed(iter([silence]), under, "mono")), 1)[0]
    np.testing.assert_allclose(onsets_s(heard, 48_000), [0.25], atol=0.005)


@pytest.mark.parametrize(
    ("name", "rate_hz", "before_s"),
    [
        ("late.mp4", 48_000, Fraction(1, 2)),
        ("late.mkv", 48_000, Fraction(1, 2)),
        ("late.ts", 48_000, Fraction(1, 2)),
        ("low.mp4", 8_000, Fraction(0)),
        ("low.ts", 8_000, Fraction(0)),
        ("low.flv", 16_000, Fraction(0)),
    ],
)
def test_speech_out_of_the_video_itself_stays_with_its_pictures(name: str, rate_hz: int, before_s: Fraction, tmp_path: Path) -> None:
    """Sound may begin first, by what the encoder put before it alone: 128 ms of AAC at 8 kHz, where the container does not say so."""
    sound = Sound("aac", rate_hz, sample_format="fltp", clicks_s=(Fraction(3, 4), Fraction(5, 4)), duration_s=Fraction(3, 2))
    path = make_clip(tmp_path / name, Clip(first_tick=40), sound, sound_delay_s=-before_s)
    speech = plan_render(path, path, tmp_path / "out.mp4").voices[0].speech.info
    heard = np.concatenate(list(speech_samples(speech, "mono", 48_000)), 1)[0]
    np.testing.assert_allclose(onsets_s(heard, 48_000), [0.75 - float(before_s), 1.25 - float(before_s)], atol=0.003)


CONTAINERS = {
    "clip.mp4": Clip(b_frames=2, options=B_FRAMES, frame_count=16),
    "clip.mkv": Clip(b_frames=2, options=B_FRAMES, frame_count=16),
    "clip.avi": Clip(codec="mpeg4", options={}, frame_count=16),
    "clip.ts": Clip(b_frames=2, options=B_FRAMES, frame_count=16, first_tick=35),
    "clip.webm": Clip(codec="libvpx-vp9", options={"cpu-used": "8", "deadline": "realtime"}, frame_count=16),
    "clip.gif": Clip(codec="gif", pix_fmt="rgb8", options={}, frame_count=16),
    "clip.h264": Clip(options=B_FRAMES, b_frames=2, frame_count=16),
    "clip.mpg": Clip(codec="mpeg2video", options={}, b_frames=2, frame_count=16),
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_file_with_bits_that_flipped_is_a_whole_video_or_an_error_of_ours(name: str, speech: Path, tmp_path: Path) -> None:
    """Fixed seeds: what does not end in an error is an output of exactly its length that decodes from beginning to end."""
    whole, dice = make_clip(tmp_path / name, CONTAINERS[name]).read_bytes(), random.Random(name)
    damaged, outcomes = tmp_path / f"damaged{Path(name).suffix}", set()
    info = read_speech(speech).info
    for attempt in range(10):
        data = bytearray(whole)
        for _ in range(dice.choice([1, 3, 30])):
            data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
        if attempt == 9:
            del data[dice.randrange(len(data) // 2) : dice.randrange(len(data) // 2, len(data))]
        damaged.write_bytes(data)
        out = tmp_path / f"{attempt}.mp4"
        try:
            shown, _ = output(damaged, info, RenderOptions(sync_mode="bounce"), out)
        except InputError as exc:
            assert str(exc).endswith(".") and damaged.name in str(exc)
            outcomes.add(exc.code)
            continue
        with av.open(str(out)) as container:
            assert len(list(container.decode(video=0))) == shown.frame_count
            assert abs(shown.duration_s - info.duration_s) <= 1 / shown.clock.frame_rate / 2
        outcomes.add("video")
    assert outcomes <= {"video", "unreadable_media", "empty_stream", "missing_stream", "limit_exceeded"}
    assert "video" in outcomes


FIRST_HALF = Clip(frame_count=10, first_tick=35)


def broken_clusters(path: Path) -> Path:
    """Return a Matroska file of which every second cluster says that it begins at 0."""
    data = bytearray(make_clip(path, Clip(gop=5, container_options={"cluster_time_limit": "200"})).read_bytes())
    at, count = -1, 0
    while (at := data.find(bytes.fromhex("1f43b675"), at + 1)) >= 0:
        time_at = data.find(b"\xe7", at, at + 20)
        size, count = data[time_at + 1] & 0x7F, count + 1
        if count % 2 == 0:
            data[time_at + 2 : time_at + 2 + size] = bytes(size)
    assert count > 3
    path.write_bytes(data)
    return path


def without_header(path: Path) -> Path:
    data = make_clip(path).read_bytes()
    at = data.index(b"moov") - 4
    path.write_bytes(data[:at] + data[at + struct.unpack(">I", data[at : at + 4])[0] :])
    return path


def cut_av1(path: Path) -> Path:
    data = make_clip(path, Clip(codec="libsvtav1", frame_count=60, options={"preset": "10"})).read_bytes()
    path.write_bytes(data[: len(data) // 4])
    return path


@pytest.mark.parametrize(
    ("name", "make"), [("clusters.mkv", broken_clusters), ("moov.mp4", without_header), ("av1.mp4", cut_av1), ("av1.webm", cut_av1)]
)
def test_file_whose_structure_is_broken_is_refused_by_name(name: str, make: Callable[[Path], Path], tmp_path: Path) -> None:
    with pytest.raises(UnreadableMedia, match=rf"{name} (is truncated|cannot be read)"):
        probe_video(make(tmp_path / name))


@pytest.mark.parametrize(
    ("name", "then"),
    [
        ("size.ts", Clip(frame_count=10, first_tick=45, size_wh=(192, 128))),
        ("chroma.ts", Clip(frame_count=10, first_tick=45, pix_fmt="yuv422p")),
        ("depth.ts", Clip(frame_count=10, first_tick=45, pix_fmt="yuv420p10le")),
        ("size.h264", Clip(frame_count=10, size_wh=(192, 128))),
    ],
)
def test_pictures_that_change_their_kind_on_the_way_go_on_in_that_of_the_first(name: str, then: Clip, speech: Path, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(make_clip(path, FIRST_HALF).read_bytes() + make_clip(tmp_path / f"then{path.suffix}", then).read_bytes())
    output(path, read_speech(speech).info, RenderOptions(), tmp_path / "out.mp4")
    there = [*range(10), *range(10)]
    assert [number for _, number in seen(tmp_path / "out.mp4")] == [*there, *there[-2::-1], 1]
    assert probe_video(tmp_path / "out.mp4").size_wh == (96, 64)


@pytest.mark.parametrize(
    ("name", "clip"),
    [
        ("composition.mp4", Clip(b_frames=2, options=B_FRAMES, container_options={"movflags": "+negative_cts_offsets"})),
        ("negative.mkv", Clip(first_tick=-25, container_options={"avoid_negative_ts": "disabled"})),
        ("wide.mkv", Clip(codec="ffv1", options={}, size_wh=(16_384, 64), frame_count=5)),
    ],
)
def test_odd_but_whole_video_comes_out_picture_by_picture(name: str, clip: Clip, speech: Path, tmp_path: Path) -> None:
    output(make_clip(tmp_path / name, clip), read_speech(speech).info, RenderOptions(sync_mode="cut_off"), tmp_path / "out.mp4")
    assert [number for _, number in seen(tmp_path / "out.mp4")] == [*range(clip.frame_count)]


def test_stream_with_one_picture_before_the_video_is_not_taken_for_it(speech: Path, tmp_path: Path) -> None:
    """As tools leave it that remux a cover into Matroska without its mark."""
    make_clip(tmp_path / "clip.mp4")
    with av.open(str(tmp_path / "cover.mkv"), "w") as target, av.open(str(tmp_path / "clip.mp4")) as source:
        cover = target.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 320, 240, "yuvj420p"
        video = target.add_stream_from_template(source.streams.video[0])
        for picture in (av.VideoFrame.from_ndarray(np.full((240, 320, 3), 200, np.uint8)).reformat(format="yuvj420p"), None):
            target.mux(cover.encode(picture))
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = video
                target.mux(packet)
    output(tmp_path / "cover.mkv", read_speech(speech).info, RenderOptions(sync_mode="cut_off"), tmp_path / "out.mp4")
    assert [number for _, number in seen(tmp_path / "out.mp4")] == [*range(30)]


@pytest.mark.parametrize(
    ("name", "sizes", "lengths_s", "default", "chosen"),
    [
        ("picture in front.mp4", ("1280x720", "320x180"), (0.04, 2), 0, 1),
        ("picture in front.mkv", ("1280x720", "320x180"), (0.04, 2), 0, 1),
        ("preview in front.ts", ("160x90", "320x180"), (2, 2), None, 1),
        ("preview behind.ts", ("320x180", "160x90"), (2, 2), None, 0),
        ("preview in front.mkv", ("160x90", "320x180"), (2, 2), 1, 1),
        ("both the default.mkv", ("160x90", "320x180"), (2, 2), "both", 1),
        ("longer one behind.mkv", ("320x180", "300x180"), (1, 3), "both", 1),
        ("small default.mkv", ("320x180", "160x90"), (2, 2), 1, 1),
        ("cover behind.mp4", ("320x180", "1280x720"), (2, 0.04), "cover", 0),
    ],
)
def test_of_several_videos_the_one_is_read_that_is_meant(
    name: str, sizes: tuple[str, str], lengths_s: tuple[float, float], default: int | str | None, chosen: int, tmp_path: Path
) -> None:
    inputs = [["-f", "lavfi", "-i", f"testsrc2=s={size}:r=25:d={length_s}"] for size, length_s in zip(sizes, lengths_s, strict=True)]
    marks = [
        ["-disposition:v:0", "default" if default in (0, "both", "cover") else "0"],
        ["-disposition:v:1", "attached_pic" if default == "cover" else "default" if default in (1, "both") else "0"],
    ]
    codec = ["-c:v", "mpeg2video" if name.endswith("ts") else "libx264"] + (["-c:v:1", "mjpeg"] if default == "cover" else [])
    run_ffmpeg(*inputs[0], *inputs[1], "-map", 0, "-map", 1, *codec, *marks[0], *marks[1], tmp_path / name)
    info = probe_video(tmp_path / name)
    assert f"{info.size_wh[0]}x{info.size_wh[1]}" == sizes[chosen]
    assert info.stream_index == chosen and not info.is_still
    assert len(index_of(info)) == round(25 * lengths_s[chosen])
    foreseen = foresee_frames(info)
    assert foreseen is None or len(foreseen.pts) == round(25 * lengths_s[chosen])


@pytest.mark.parametrize("told", ["00:00:1e100000000", "1e9:00:00", "00:00:-1", "00:00:999999999999"])
def test_length_that_makes_no_sense_takes_no_time(told: str, tmp_path: Path) -> None:
    path = tmp_path / "two.mkv"
    run_ffmpeg("-f", "lavfi", "-i", "testsrc2=s=64x48:r=25:d=1", "-map", 0, "-map", 0, "-c:v", "libx264", path)
    data = path.read_bytes()
    assert data.count(b"00:00:01.000000000") == 2
    path.write_bytes(data.replace(b"00:00:01.000000000", told.encode().ljust(18, b"\0")))
    with av.open(str(path)) as written:
        assert written.streams[0].metadata["DURATION"] == told
    began = time.monotonic()
    assert probe_video(path).stream_index == 0
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("declared", [0, 3 << 30, 0xFFFFFFFF])
def test_wav_that_was_streamed_and_does_not_know_its_size_is_read_to_its_end(declared: int, speech: Path, tmp_path: Path) -> None:
    data = bytearray(speech.read_bytes())
    for at in (4, data.index(b"data") + 4):
        data[at : at + 4] = struct.pack("<I", declared)
    (tmp_path / "stream.wav").write_bytes(data)
    assert read_speech(tmp_path / "stream.wav").info.duration_s == Fraction(8, 5)


def test_garbage_in_a_stream_of_aac_is_left_out_and_before_it_refused(tmp_path: Path) -> None:
    data = make_sound(tmp_path / "speech.aac", Sound("aac", 48_000, sample_format="fltp", duration_s=Fraction(4))).read_bytes()
    garbage, middle = random.Random(3).randbytes(5000), len(data) // 2
    (tmp_path / "middle.aac").write_bytes(data[:middle] + garbage + data[middle:])
    info = read_speech(tmp_path / "middle.aac").info
    assert info.damaged_packet_count and abs(info.duration_s - 4) < Fraction(1, 10)
    (tmp_path / "first.aac").write_bytes(random.Random(3).randbytes(3000) + data)
    with pytest.raises(UnreadableMedia, match=r"first.aac cannot be read") as caught:
        read_speech(tmp_path / "first.aac")
    assert "number" not in str(caught.value)
