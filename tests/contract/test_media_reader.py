"""One suite over the kinds of video people have: what the header says, and the same frames whichever way they are read."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.stream import VideoStream
from numpy.typing import NDArray
from PIL import Image, ImageOps

from orchestrator.errors import UnreadableMedia
from orchestrator.media import reader as reader_module
from orchestrator.media.foreseen import foresee_frames
from orchestrator.media.planes import plane_view, sample_views
from orchestrator.media.probe import ColourTags, VideoInfo, probe_video
from orchestrator.media.reader import DecodedFrame, FrameIndex, VideoReader
from orchestrator.media.times import MISSING_PTS
from preprocess.letterbox import Letterbox
from preprocess.orientation import UPRIGHT, Orientation
from tests.clips import (
    FRONT_CAMERA_MATRIX,
    PORTRAIT_PHONE_MATRIX,
    Clip,
    frames_of,
    make_clip,
    number_of,
    numbered_picture,
    numbered_planes,
    picture_of,
    planes_of,
    write_video,
)

B_FRAMES = {"preset": "veryfast", "qp": "0", "x264-params": "b-adapt=0:scenecut=0"}
FORCED = {**B_FRAMES, "forced-idr": "1"}
OPEN_GOP = {"preset": "veryfast", "qp": "0", "x264-params": "open-gop=1:keyint=12:min-keyint=12:bframes=3:b-adapt=0:scenecut=0"}
X265 = {
    "preset": "ultrafast",
    "x265-params": "lossless=1:log-level=none:pools=1:frame-threads=1:keyint=12:min-keyint=12:open-gop=1:bframes=3:b-adapt=0",
}
VP9 = {"lossless": "1", "cpu-used": "8", "deadline": "realtime"}


@dataclass(frozen=True)
class Case:
    """A clip, and what is to be found out about it."""

    file: str
    clip: Clip
    pix_fmt: str = ""
    """As decoded, where that differs from what was encoded."""
    frame_rate: Fraction | None = None
    orientation: Orientation = UPRIGHT
    is_lossless: bool = True


CASES = {
    "h264 mp4": Case("clip.mp4", Clip()),
    "h264 mp4 at 24000/1001": Case("clip.mp4", Clip(frame_rate=Fraction(24000, 1001))),
    "h264 mp4 at 30000/1001": Case("clip.mp4", Clip(frame_rate=Fraction(30000, 1001))),
    "h264 mp4 with B frames": Case("clip.mp4", Clip(b_frames=3, options=B_FRAMES)),
    "h264 mp4 with open groups": Case("clip.mp4", Clip(b_frames=3, options=OPEN_GOP, frame_count=50)),
    "h264 mp4 with one long group": Case("clip.mp4", Clip(b_frames=3, options=B_FRAMES, frame_count=60, gop=250)),
    "h264 mp4 with key frames side by side": Case("clip.mp4", Clip(b_frames=3, options=FORCED, key_at=(10, 11, 12, 20, 22))),
    "h264 mp4 that starts late": Case("clip.mp4", Clip(first_tick=40)),
    "h264 mp4 with a variable frame rate": Case(
        "clip.mp4",
        Clip(frame_rate=Fraction(1000), ticks=[int(tick) for tick in np.cumsum([0] + [30, 50, 40] * 9 + [40, 40])]),
        frame_rate=Fraction(25),
    ),
    "h264 mp4 turned 90": Case("clip.mp4", Clip(orientation=Orientation(90)), orientation=Orientation(90)),
    "h264 mp4 turned 180": Case("clip.mp4", Clip(orientation=Orientation(180)), orientation=Orientation(180)),
    "h264 mp4 turned 270": Case("clip.mp4", Clip(orientation=Orientation(270)), orientation=Orientation(270)),
    "h264 mp4 mirrored": Case("clip.mp4", Clip(orientation=Orientation(is_mirrored=True)), orientation=Orientation(is_mirrored=True)),
    "h264 mp4 upside down": Case("clip.mp4", Clip(orientation=Orientation(180, True)), orientation=Orientation(180, True)),
    "h264 mp4 of a front camera": Case("clip.mp4", Clip(display_matrix=FRONT_CAMERA_MATRIX), orientation=Orientation(270, True)),
    "h264 mkv mirrored": Case("clip.mkv", Clip(orientation=Orientation(is_mirrored=True)), orientation=Orientation(is_mirrored=True)),
    "h264 mp4 of a phone held upright": Case("clip.mp4", Clip(display_matrix=PORTRAIT_PHONE_MATRIX), orientation=Orientation(270)),
    "h264 mp4 in full range": Case("clip.mp4", Clip(pix_fmt="yuvj420p", colour=(2, 1, 1, 1))),
    "h264 mp4 in BT.709": Case("clip.mp4", Clip(colour=(1, 1, 1, 1))),
    "h264 mp4 with 4:2:2": Case("clip.mp4", Clip(pix_fmt="yuv422p")),
    "h264 mp4 with 4:4:4, odd-sized": Case("clip.mp4", Clip(pix_fmt="yuv444p", size_wh=(97, 65))),
    "h264 mp4 with 10 bits": Case("clip.mp4", Clip(pix_fmt="yuv420p10le"), is_lossless=False),
    "h264 mp4 with wide pixels": Case("clip.mp4", Clip(sample_aspect_ratio=Fraction(4, 3))),
    "h264 mp4, interlaced": Case("clip.mp4", Clip(b_frames=2, options={**B_FRAMES, "flags": "+ildct+ilme"}), is_lossless=False),
    "h264 mp4, interlaced, with 10 bits": Case(
        "clip.mp4", Clip(pix_fmt="yuv420p10le", b_frames=2, options={**B_FRAMES, "flags": "+ildct+ilme"}), is_lossless=False
    ),
    "mpeg2 ts, interlaced": Case("clip.ts", Clip(codec="mpeg2video", b_frames=2, options={"flags": "+ildct+ilme"}), is_lossless=False),
    "h264 mkv": Case("clip.mkv", Clip(b_frames=2, options=B_FRAMES)),
    "h264 mkv at 48000/1001": Case("clip.mkv", Clip(frame_rate=Fraction(48000, 1001))),
    "h264 mkv at 60000/1001": Case("clip.mkv", Clip(frame_rate=Fraction(60000, 1001))),
    "h264 mkv at 120000/1001": Case("clip.mkv", Clip(frame_rate=Fraction(120000, 1001))),
    "h264 mkv that starts late": Case("clip.mkv", Clip(first_tick=40)),
    "h264 ts": Case("clip.ts", Clip(b_frames=2, options=B_FRAMES, first_tick=35)),
    "h264 ts with open groups": Case("clip.ts", Clip(b_frames=3, options=OPEN_GOP, frame_count=50, first_tick=35)),
    "h264 ts with key frames side by side": Case("clip.ts", Clip(b_frames=3, options=FORCED, key_at=(10, 11, 20), first_tick=35)),
    "h264 avi with B frames": Case("clip.avi", Clip(b_frames=2, options=B_FRAMES)),
    "h264 flv": Case("clip.flv", Clip(b_frames=2, options=B_FRAMES)),
    "h264 without a container": Case("clip.h264", Clip(b_frames=2, options=B_FRAMES, frame_rate=Fraction(50))),
    "mpeg2 without a container": Case(
        "clip.m2v", Clip(codec="mpeg2video", options={}, b_frames=2, frame_rate=Fraction(50)), frame_rate=Fraction(50), is_lossless=False
    ),
    "h263 without a container": Case(
        "clip.h263",
        Clip(codec="h263", options={}, size_wh=(128, 96), frame_rate=Fraction(30000, 1001), sample_aspect_ratio=Fraction(12, 11)),
        is_lossless=False,
    ),
    "mjpeg without a container": Case("clip.mjpeg", Clip(codec="mjpeg", pix_fmt="yuvj420p", options={}), is_lossless=False),
    "y4m": Case("clip.y4m", Clip(codec="rawvideo", options={}, frame_rate=Fraction(50))),
    "hevc mp4 with open groups": Case("clip.mp4", Clip(codec="libx265", options=X265)),
    "vp9 webm": Case("clip.webm", Clip(codec="libvpx-vp9", options=VP9)),
    "vp9 webm, odd-sized": Case("clip.webm", Clip(codec="libvpx-vp9", options=VP9, size_wh=(97, 65))),
    "vp9 webm with hidden frames": Case(
        "clip.webm", Clip(codec="libvpx-vp9", options={"lossless": "1", "cpu-used": "5", "auto-alt-ref": "1", "lag-in-frames": "16"})
    ),
    "av1 mp4": Case("clip.mp4", Clip(codec="libsvtav1", options={"preset": "12", "svtav1-params": "lp=1:keyint=12"}), is_lossless=False),
    "mpeg4 avi": Case("clip.avi", Clip(codec="mpeg4", options={}), is_lossless=False),
    "mpeg4 avi with B frames": Case("clip.avi", Clip(codec="mpeg4", options={}, b_frames=2), is_lossless=False),
    "mpeg2 ts": Case("clip.ts", Clip(codec="mpeg2video", options={}, b_frames=2), is_lossless=False),
    "mpeg2 program stream": Case("clip.mpg", Clip(codec="mpeg2video", options={}, b_frames=2), is_lossless=False),
    "mjpeg mov": Case("clip.mov", Clip(codec="mjpeg", pix_fmt="yuvj420p", options={}), is_lossless=False),
    "gif": Case("clip.gif", Clip(codec="gif", pix_fmt="rgb8", options={}), pix_fmt="bgra", is_lossless=False),
    "png": Case("clip.png", Clip(codec="png", pix_fmt="rgb24", options={}, frame_count=1), is_lossless=False),
    "jpeg 2000": Case("clip.jp2", Clip(codec="jpeg2000", options={}, pix_fmt="rgb24", frame_count=1), is_lossless=False),
    "qoi": Case("clip.qoi", Clip(codec="qoi", options={}, pix_fmt="rgb24", frame_count=1), is_lossless=False),
    "ppm": Case("clip.ppm", Clip(codec="ppm", options={}, pix_fmt="rgb24", frame_count=1), is_lossless=False),
    "jpg": Case("clip.jpg", Clip(codec="mjpeg", pix_fmt="yuvj420p", options={}, frame_count=1), is_lossless=False),
    "jpg, odd-sized": Case("clip.jpg", Clip(codec="mjpeg", pix_fmt="yuvj420p", options={}, frame_count=1, size_wh=(97, 65)), is_lossless=False),
}

Made = Callable[[str], VideoInfo]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Makes a case's clip when it is first asked for, and probes it."""
    infos: dict[str, VideoInfo] = {}

    def make(name: str) -> VideoInfo:
        if name not in infos:
            infos[name] = probe_video(make_clip(tmp_path_factory.mktemp("clip") / CASES[name].file, CASES[name].clip))
        return infos[name]

    return make


def numbers_and_planes(frames: Iterator[DecodedFrame]) -> tuple[list[int], list[int], list[tuple[NDArray[np.uint8], ...]]]:
    """Return the frames' own indices, the numbers seen in their pictures, and copies of their planes."""
    indices, numbers, planes = [], [], []
    for frame in frames:
        copies = planes_of(frame.picture)
        indices.append(frame.index)
        numbers.append(number_of(copies[0]))
        planes.append(copies)
    return indices, numbers, planes


def index_of(info: VideoInfo) -> FrameIndex:
    with VideoReader(info) as reader:
        frames = [(MISSING_PTS if frame.picture.pts is None else frame.picture.pts, frame.is_key) for frame in reader.decode_from_start()]
    return FrameIndex(np.array([pts for pts, _ in frames], np.int64), np.array([is_key for _, is_key in frames], np.bool_))


@pytest.mark.parametrize("name", CASES)
def test_probe_finds_size_rate_rotation_colour_and_format(made: Made, name: str) -> None:
    case, info = CASES[name], made(name)
    assert info.size_wh == case.clip.size_wh
    assert info.orientation == case.orientation
    assert info.pix_fmt == (case.pix_fmt or case.clip.pix_fmt)
    assert info.is_still == (case.clip.frame_count == 1)
    if case.clip.ticks is None:
        assert info.frame_rate == (case.frame_rate or case.clip.frame_rate)
    else:
        assert case.frame_rate is not None
        assert abs(info.frame_rate / case.frame_rate - 1) < Fraction(1, 25), "the average, give or take the last frame's unknown length"
    assert info.sample_aspect_ratio == (case.clip.sample_aspect_ratio or 1)
    if case.clip.colour != (0, 2, 2, 2):
        assert info.colour == ColourTags(*case.clip.colour)


@pytest.mark.parametrize("name", CASES)
def test_every_frame_comes_in_order_as_it_was_encoded(made: Made, name: str) -> None:
    case, info = CASES[name], made(name)
    with VideoReader(info) as reader:
        indices, numbers, planes = numbers_and_planes(reader.decode_from_start())
        assert reader.damaged_packet_count == 0
    assert indices == numbers == list(range(case.clip.frame_count))
    width, height = info.working_size_wh
    assert all(copies[0].shape == (height, width) for copies in planes)
    if case.is_lossless:
        for number, copies in zip(numbers, planes, strict=True):
            for actual, expected in zip(copies, numbered_planes(number, case.clip.size_wh, case.clip.pix_fmt), strict=True):
                assert np.array_equal(actual, expected[: actual.shape[0], : actual.shape[1]])


UNFORESEEN = ("avi", "flv", "h264", "m2v", "h263", "mjpeg", "mpg", "gif", "png", "jpg", "jp2", "qoi", "ppm")
"""Kinds of files whose packets do not say when each frame is shown."""


@pytest.mark.parametrize("name", CASES)
def test_packets_foresee_the_frames_that_are_decoded(made: Made, name: str) -> None:
    info = made(name)
    foreseen = foresee_frames(info)
    if foreseen is not None:
        index = index_of(info)
        np.testing.assert_array_equal(foreseen.pts, index.pts)
        assert foreseen.is_whole
        begun = foresee_frames(info, Fraction(1, 5))
        assert begun is not None and len(begun.pts) >= min(5, len(index))
        np.testing.assert_array_equal(begun.pts, index.pts[: len(begun.pts)])
        assert begun.is_whole == (len(begun.pts) == len(index))
    is_plain = Path(CASES[name].file).suffix[1:] not in UNFORESEEN and not info.is_interlaced
    assert foreseen is not None or not is_plain, "what ordinary cameras and editors write is foreseen"


@pytest.mark.parametrize("name", CASES)
def test_runs_forwards_and_backwards_give_the_same_pixels_as_the_first_pass(made: Made, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader_module, "REVERSE_BUFFER_BYTES", 1)  # eight frames at a time, the least there is
    info = made(name)
    with VideoReader(info) as reader:
        _, _, first_pass = numbers_and_planes(reader.decode_from_start())
    index, count = index_of(info), len(first_pass)
    assert len(index) == count
    middle, last = count // 2, count - 1
    orders = (
        [*range(count)],
        [*range(last, -1, -1)],
        [*range(middle, count), last],
        [*range(middle, -1, -1), *range(1, 4)] if count > 4 else [0],
        [middle] * 3,
        [*range(0, count, 3), *range(0, count, 4)],
        [last, last, *range(last, 0, -3), 0, 0],
    )
    with VideoReader(info) as reader:
        for order in orders:
            indices, numbers, planes = numbers_and_planes(reader.decode_order(index, np.array(order)))
            assert indices == numbers == order
            for number, copies in zip(numbers, planes, strict=True):
                assert all(np.array_equal(actual, expected) for actual, expected in zip(copies, first_pass[number], strict=True)), (order, number)


def test_interlaced_frames_are_made_whole(tmp_path: Path) -> None:
    """Two fields of an object that moves between them, as a television camera sees it: combs in the source, none in what is read."""
    path, bar = tmp_path / "fields.mp4", 24

    def fields(number: int) -> av.VideoFrame:
        luma = np.full((128, 192), 40, np.uint8)
        for field in (1, 0):  # FFmpeg's encoder marks the lower field as the first
            left = 10 + 12 * number + 6 * (1 - field)
            luma[field::2, left : left + bar] = 200
        return picture_of((luma, *[np.full((64, 96), 128, np.uint8)] * 2))

    write_video(path, map(fields, range(12)), {"preset": "veryfast", "qp": "0", "flags": "+ildct+ilme"})
    info = probe_video(path)
    assert info.is_interlaced and not probe_video(make_clip(tmp_path / "clip.mp4", Clip())).is_interlaced

    def comb(luma: NDArray[np.uint8]) -> float:
        return float(np.abs(luma[1:-1].astype(float) - (luma[:-2].astype(float) + luma[2:]) / 2).mean())

    raw = [planes_of(frame)[0] for frame in frames_of(path)]
    with VideoReader(info) as reader:
        whole = [planes_of(frame.picture)[0] for frame in reader.decode_from_start()]
    assert len(whole) == len(raw) == 12
    for number, (combed, luma) in enumerate(zip(raw, whole, strict=True)):
        assert comb(luma) < comb(combed) / 3
        assert np.array_equal(luma[1::2], combed[1::2]), "the field shown first stays as it is"
        columns = np.flatnonzero(luma[64] > 120)
        assert abs(columns.mean() - (10 + 12 * number + (bar - 1) / 2)) <= 1, "and the picture is of its time"


def test_reading_backwards_holds_no_more_frames_than_its_buffer(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    info = made("h264 mp4 with one long group")
    index = index_of(info)
    frame_bytes = 96 * 64 * 3 // 2
    monkeypatch.setattr(reader_module, "REVERSE_BUFFER_BYTES", 10 * frame_bytes)
    held: list[int] = []

    def count(reader: VideoReader, picture: av.VideoFrame) -> av.VideoFrame:
        held.append(1)
        return picture

    monkeypatch.setattr(VideoReader, "_prepare", count)
    with VideoReader(info) as reader:
        frames = reader.decode_order(index, np.arange(59, -1, -1))
        for done in range(60):
            assert next(frames).index == 59 - done
            assert len(held) - done <= 10


@pytest.mark.parametrize("name", ["h264 mp4 with B frames", "h264 mkv", "h264 ts", "vp9 webm with hidden frames"])
def test_pictures_of_a_run_are_free_to_be_edited(made: Made, name: str) -> None:
    """Writing into a picture must not show up in the frames the decoder predicts from it, nor in its twins."""
    info = made(name)
    index = index_of(info)
    with VideoReader(info) as reader:
        for order in ([*range(20)], [*range(19, 4, -1)], [5] * 4, [9, 9, 7, 7, 2]):
            for frame in reader.decode_order(index, np.array(order)):
                frame.picture.make_writable()
                copies = planes_of(frame.picture)
                assert all(np.array_equal(a, b) for a, b in zip(copies, numbered_planes(frame.index, info.size_wh), strict=True)), (
                    order,
                    frame.index,
                )
                plane = plane_view(frame.picture.planes[0])
                plane[:] = 255


@pytest.mark.parametrize("turn_deg", [90, 180, 270])
def test_letterbox_turns_the_picture_as_a_player_does(made: Made, turn_deg: int) -> None:
    """A phone held upright stores its picture lying: what is stored at the top left is seen at the top right (ISO 14496-12)."""
    info = made("h264 mp4 of a phone held upright")
    turns = {90: 1, 180: 2, 270: 3}
    coded = np.zeros((64, 96, 3), np.uint8)
    coded[0, 0] = 255
    seen = Letterbox.fit(info.size_wh, info.orientation, 96).place(coded)
    assert seen[0, 63, 0] == 255
    info = made(f"h264 mp4 turned {turn_deg}")
    seen = Letterbox.fit(info.size_wh, info.orientation, 96).place(coded)
    turned = np.rot90(coded, turns[turn_deg])
    assert np.array_equal(seen[: turned.shape[0], : turned.shape[1]], turned)


def test_letterbox_mirrors_the_picture_as_a_player_does(made: Made) -> None:
    coded = np.arange(64 * 96 * 3, dtype=np.uint8).reshape(64, 96, 3)
    shown = {"mirrored": coded[:, ::-1], "upside down": coded[::-1], "of a front camera": coded.transpose(1, 0, 2)}
    for name, expected in shown.items():
        info = made(f"h264 mp4 {name}")
        seen = Letterbox.fit(info.size_wh, info.orientation, 96).place(coded)
        assert np.array_equal(seen[: expected.shape[0], : expected.shape[1]], expected), name


@pytest.mark.parametrize("kind", ["jpg", "png", "webp"])
@pytest.mark.parametrize("number", range(1, 9))
def test_photograph_is_shown_as_its_exif_says(tmp_path: Path, kind: str, number: int) -> None:
    stored = Image.fromarray(np.add.outer(np.arange(64), np.arange(96)).astype(np.uint8)).convert("RGB")
    stored.paste((255, 0, 0), (0, 0, 30, 20))
    exif = Image.Exif()
    exif[0x0112] = number
    stored.save(tmp_path / f"face.{kind}", exif=exif, quality=95)
    info = probe_video(tmp_path / f"face.{kind}")
    seen = info.orientation.shown(np.asarray(stored))
    with Image.open(tmp_path / f"face.{kind}") as photograph:
        expected = np.asarray(ImageOps.exif_transpose(photograph).convert("RGB"))
    assert seen.shape == expected.shape
    assert np.abs(seen.astype(int) - expected).mean() < 5


@pytest.mark.parametrize("at", [1, 5, 9])
def test_packets_without_a_byte_leave_the_picture_as_it_is(tmp_path: Path, at: int) -> None:
    """As Theora writes where nothing moves."""
    make_clip(tmp_path / "whole.avi", Clip(codec="mpeg4", options={"q": "2"}, frame_count=10, gop=1))
    with av.open(str(tmp_path / "whole.avi")) as source, av.open(str(tmp_path / "still.nut"), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(found for found in source.demux() if found.size):
            held = av.Packet(b"" if number == at else bytes(packet))
            held.pts, held.dts, held.time_base, held.is_keyframe, held.stream = number, number, packet.time_base, True, stream
            target.mux(held)
    info = probe_video(tmp_path / "still.nut")
    with VideoReader(info) as reader:
        shown = [number_of(planes_of(frame.picture)[0]) for frame in reader.decode_from_start()]
    assert shown == [number for number in range(10) if number != at]
    assert info.frame_rate == 25


def test_samples_of_more_bits_than_their_format_has_are_cut_to_it(tmp_path: Path) -> None:
    """As damaged H.264 of 10 bits decodes to them; x264 ends the process on them."""
    picture = numbered_picture(0, Clip(pix_fmt="yuv420p10le"))
    with av.open(str(tmp_path / "wild.nut"), "w") as container:
        stream = container.add_stream("rawvideo", rate=25)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p10le"
        for index in range(2):
            picture.pts, picture.time_base = index, Fraction(1, 25)
            sample_views(picture)[0][:8] = 512 + 40_000 * index
            container.mux(stream.encode(picture))
    with VideoReader(probe_video(tmp_path / "wild.nut")) as reader:
        first, second = (sample_views(frame.picture)[0].copy() for frame in reader.decode_from_start())
    assert (first[:8] == 512).all() and (second[:8] == 1023).all()
    assert np.array_equal(first[8:], second[8:])


def test_detectors_picture_shows_the_frame_scaled(made: Made) -> None:
    info = made("h264 mp4")
    with VideoReader(info) as reader:
        image = next(reader.decode_from_start()).scaled_rgb((48, 32))
    luma = numbered_planes(0, info.size_wh)[0].astype(np.float32)
    expected = (luma.reshape(32, 2, 48, 2).mean((1, 3)) - 16) * 255 / 219
    assert image.shape == (32, 48, 3)
    # Frame 0 has chroma 100 and 150 and is untagged: BT.601. Green = Y - 0.344 U - 0.714 V (ITU-R BT.601).
    green = expected - (0.344136 * (100 - 128) + 0.714136 * (150 - 128)) * 255 / 224
    np.testing.assert_allclose(image[4:12, ::8, 1].astype(float), np.clip(green, 0, 255)[4:12, ::8], atol=4)


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv422p10le", "yuv444p", "gbrp"])
def test_detectors_picture_does_not_depend_on_threads(pix_fmt: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (721, 1081, 3), np.uint8)
    frame = DecodedFrame(0, av.VideoFrame.from_ndarray(noise, format="rgb24").reformat(format=pix_fmt), is_key=True)
    threaded = frame.picture.reformat(384, 256, format="rgb24", interpolation="AREA", threads=3).to_ndarray()
    assert np.array_equal(frame.scaled_rgb((384, 256)), threaded)


def test_working_size_loses_only_the_column_and_row_that_420_cannot_code(made: Made) -> None:
    assert made("vp9 webm, odd-sized").working_size_wh == (96, 64)
    assert made("h264 mp4 with 4:4:4, odd-sized").working_size_wh == (97, 65)
    info = replace(made("h264 mp4 with 4:2:2"), size_wh=(97, 65))
    assert info.working_size_wh == (96, 65)


def test_stream_whose_size_changes_is_brought_to_its_first_size(tmp_path: Path) -> None:
    small = make_clip(tmp_path / "a.h264", Clip(frame_count=6)).read_bytes()
    large = make_clip(tmp_path / "b.h264", Clip(frame_count=6, size_wh=(192, 128))).read_bytes()
    path = tmp_path / "both.h264"
    path.write_bytes(small + large)
    info = probe_video(path)
    assert info.size_wh == (96, 64)
    with VideoReader(info) as reader:
        _, numbers, planes = numbers_and_planes(reader.decode_from_start())
    assert numbers == [*range(6), *range(6)]
    assert {copies[0].shape for copies in planes} == {(64, 96)}


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_pictures_that_are_only_looked_at_differ_a_little_where_no_other_refers_to_them(tmp_path: Path, codec: str) -> None:
    """Every second one of noise that moves, coded coarsely: without the loop filter its blocks show."""
    options = {"preset": "veryfast", f"{codec[3:]}-params": "bframes=1:b-adapt=0:scenecut=0:qp=36"}
    noise = np.random.default_rng(1).normal(128, 30, (300, 300))
    lumas = (np.clip(noise[2 * number :, 3 * number :][:192, :192], 0, 255).astype(np.uint8) for number in range(15))
    pictures = (picture_of((luma, *(np.full((96, 96), 128, np.uint8),) * 2)) for luma in lumas)
    write_video(tmp_path / "moving.mp4", pictures, options, codec=codec)
    seen = []
    for is_for_looking in (False, True):
        with VideoReader(probe_video(tmp_path / "moving.mp4"), is_for_looking=is_for_looking) as reader:
            seen.append(np.stack([planes_of(frame.picture)[0].astype(int) for frame in reader.decode_from_start()]))
    difference = np.abs(seen[0] - seen[1])
    assert not difference[::2].any() and difference[1::2].any()
    assert difference.mean() < 1


def test_time_stamps_that_repeat_do_not_confuse_frames(tmp_path: Path) -> None:
    """Two recordings joined byte by byte, as MPEG-TS allows: each time stamp comes twice."""
    once = make_clip(tmp_path / "a.ts", Clip(frame_count=20, first_tick=35)).read_bytes()
    path = tmp_path / "twice.ts"
    path.write_bytes(once + once)
    info = probe_video(path)
    index = index_of(info)
    with VideoReader(info) as reader:
        _, first_pass, _ = numbers_and_planes(reader.decode_from_start())
        _, backwards, _ = numbers_and_planes(reader.decode_order(index, np.arange(len(index) - 1, -1, -1)))
    assert len(first_pass) >= 39
    assert backwards == first_pass[::-1]


@pytest.mark.parametrize(
    ("file", "clip", "begins_with", "place"),
    [
        ("clip.mkv", Clip(codec="mjpeg", pix_fmt="yuvj420p", options={}), b"\xff\xd8\xff", slice(0, 400)),
        ("clip.mov", Clip(codec="png", pix_fmt="rgb24", options={}), b"\x89PNG", slice(200, 240)),
        ("clip.avi", Clip(codec="png", pix_fmt="rgb24", options={}), b"\x89PNG", slice(200, 240)),
    ],
)
@pytest.mark.parametrize("damaged", [(5, 9), (0,), (1, 29)])
def test_damaged_packets_are_counted_and_the_rest_is_decoded(
    file: str, clip: Clip, begins_with: bytes, place: slice, damaged: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where they are the first, and in PNG, where it is zlib that finds them damaged. With more threads, the last takes some before it along."""
    monkeypatch.setattr(reader_module, "DECODER_THREADS", 2)
    path = make_clip(tmp_path / file, clip)
    data = bytearray(path.read_bytes())
    starts = [match.start() for match in re.finditer(re.escape(begins_with), data)]
    assert len(starts) == 30
    for number in damaged:
        data[starts[number] + place.start : starts[number] + place.stop] = bytes(place.stop - place.start)
    path.write_bytes(data)
    info = probe_video(path)
    assert not info.is_still and info.frame_rate == 25
    with VideoReader(info) as reader:
        _, numbers, _ = numbers_and_planes(reader.decode_from_start())
        assert reader.damaged_packet_count == len(damaged)
    assert numbers == [number for number in range(30) if number not in damaged]


def test_video_of_which_no_packet_decodes_is_refused(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "clip.mkv", Clip(codec="mjpeg", pix_fmt="yuvj420p", options={}))
    path.write_bytes(re.sub(b"\xff\xd8\xff.{397}", bytes(400), path.read_bytes(), flags=re.DOTALL))
    with pytest.raises(UnreadableMedia, match="cannot be read as video or audio"):
        probe_video(path)
