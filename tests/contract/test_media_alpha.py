"""Alpha in: seen in every format that has it. Alpha out: the plane of the source where the format can, black behind the picture where not."""

from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from orchestrator.errors import InvalidOption
from orchestrator.media.assembly import read_init_bytes
from orchestrator.media.audio import AudioInfo, read_speech
from orchestrator.media.encoding import Encoding
from orchestrator.media.formats import CodecName, ContainerName
from orchestrator.media.output import choose_output
from orchestrator.media.planes import sample_views
from orchestrator.media.probe import VideoInfo, probe_video
from orchestrator.media.reader import VideoReader
from preprocess.orientation import UPRIGHT, Orientation
from preprocess.yuv import Plane
from tests.clips import make_sound, number_of, numbered_planes, planes_of
from tests.contract.test_media_formats import movie, write_pictures

SIZE_WH = (96, 64)
FRAMES = 6


def alpha_of(number: int) -> NDArray[np.uint8]:
    """A ramp from clear to opaque that moves with the number, with a clear and an opaque edge."""
    width, height = SIZE_WH
    ramp = np.clip((np.arange(width) - 16 - number) * 4, 0, 255).astype(np.uint8)
    return np.repeat(ramp[None], height, 0)


def picture(number: int, pix_fmt: str) -> av.VideoFrame:
    made = av.VideoFrame(*SIZE_WH, "yuva420p")
    for plane, samples in zip(made.planes, (*numbered_planes(number, SIZE_WH), alpha_of(number)), strict=True):
        padded = np.zeros((plane.height, plane.line_size), np.uint8)
        padded[:, : plane.width] = samples
        plane.update(padded.tobytes())
    if pix_fmt == "yuva420p":
        return made
    converted = made.reformat(format=pix_fmt)
    if pix_fmt == "yuva444p10le":  # in which swscale makes 1020 of 255
        sample_views(converted)[3][:] = np.round(alpha_of(number) * (1023 / 255))
    return converted


@dataclass(frozen=True)
class Source:
    name: str
    codec: str
    pix_fmt: str
    options: dict[str, str]
    is_exact: bool = True
    """Whether the codec keeps every sample of alpha."""
    bits: int = 8


SOURCES = [
    Source("clip.webm", "libvpx-vp9", "yuva420p", {"lossless": "1", "auto-alt-ref": "0"}),
    Source("clip8.webm", "libvpx", "yuva420p", {"auto-alt-ref": "0", "crf": "4", "b": "2M"}, is_exact=False),
    Source("clip.mov", "prores_ks", "yuva444p10le", {"profile": "4444"}, is_exact=False, bits=10),
    Source("rgba.mov", "png", "rgba", {}),
    Source("clip.apng", "apng", "rgba", {"plays": "0"}),
    Source("clip.webp", "libwebp_anim", "bgra", {"lossless": "1"}),
    Source("still.png", "png", "rgba", {}),
    Source("still.webp", "libwebp", "yuva420p", {"lossless": "0", "quality": "100"}),
]


def make(folder: Path, source: Source, orientation: Orientation = UPRIGHT) -> Path:
    path = folder / source.name
    count = 1 if source.name.startswith("still") else FRAMES
    with av.open(str(path), "w") as container:
        stream = container.add_stream(source.codec, rate=25, options={**source.options})
        assert isinstance(stream, av.video.stream.VideoStream)
        stream.width, stream.height = SIZE_WH
        stream.pix_fmt = source.pix_fmt
        if source.codec.startswith("libvpx"):
            stream.metadata["alpha_mode"] = "1"
        if orientation != UPRIGHT:
            stream.set_display_rotation(orientation.turn_deg, hflip=orientation.is_mirrored)
        for number in range(count):
            one = picture(number, source.pix_fmt)
            one.pts, one.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(one))
        container.mux(stream.encode(None))
    return path


def frames(info: VideoInfo) -> list[tuple[Plane, ...]]:
    with VideoReader(info) as reader:
        return [tuple(plane.copy() for plane in sample_views(frame.picture)) for frame in reader.decode_from_start()]


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> AudioInfo:
    return read_speech(make_sound(tmp_path_factory.mktemp("speech") / "speech.wav")).info


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
def test_alpha_is_seen_and_kept_or_laid_over_black(tmp_path: Path, source: Source) -> None:
    info = probe_video(make(tmp_path, source))
    assert info.has_alpha
    most, black = (1 << source.bits) - 1, 16 << (source.bits - 8)
    kept = frames(replace(info, keeps_alpha=True))
    assert len(kept) == (1 if source.name.startswith("still") else FRAMES)
    for number, planes in enumerate(kept):
        assert planes[3].dtype == (np.uint8 if source.bits == 8 else np.uint16)
        difference = np.abs(planes[3] * (255 / most) - alpha_of(number))
        assert difference.max() <= (0 if source.is_exact else 6)
    for number, (flat, whole) in enumerate(zip(frames(info), kept, strict=True)):
        assert len(flat) == 3
        clear, opaque = whole[3] == 0, whole[3] == most
        assert clear.any() and opaque.any()
        assert (flat[0][clear] == black).all() and np.array_equal(flat[0][opaque], whole[0][opaque])
        middle = (black + (whole[0].astype(float) - black) * whole[3] / most).round()
        assert np.abs(flat[0] - middle).max() <= 1
        assert (flat[1][:, :4] == black * 8).all() and np.array_equal(flat[1][:, -4:], whole[1][:, -4:]), number


def test_frames_of_vp9_with_alpha_are_found_again_by_number(tmp_path: Path) -> None:
    info = replace(probe_video(make(tmp_path, SOURCES[0])), keeps_alpha=True)
    with VideoReader(info) as reader:
        first = list(reader.decode_from_start())
        assert [number_of(planes_of(frame.picture)[0]) for frame in first] == list(range(FRAMES))
        assert first[0].is_key and not all(frame.is_key for frame in first)
        again = [planes_of(frame.picture)[3] for frame in reader.decode_from_start()]
    assert all(np.array_equal(plane, alpha_of(number)) for number, plane in enumerate(again))


@pytest.mark.parametrize("source", [source for source in SOURCES if source.codec.startswith(("libvpx", "prores"))], ids=lambda source: source.name)
@pytest.mark.parametrize("orientation", [Orientation(90), Orientation(180, True), Orientation(270)])
def test_pictures_with_alpha_are_shown_as_the_container_says(tmp_path: Path, source: Source, orientation: Orientation) -> None:
    info = probe_video(make(tmp_path, source, orientation))
    assert info.has_alpha and info.orientation == orientation


def test_rgb_that_is_opaque_has_no_alpha(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "opaque.png"), "w") as container:
        stream = container.add_stream("png", rate=1)
        assert isinstance(stream, av.video.stream.VideoStream)
        stream.width, stream.height = SIZE_WH
        stream.pix_fmt = "rgba"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((64, 96, 4), 255, np.uint8), "rgba")))
        container.mux(stream.encode(None))
    info = probe_video(tmp_path / "opaque.png")
    assert (info.pix_fmt, info.has_alpha, info.working_pix_fmt) == ("rgba", False, "yuv420p")


@pytest.mark.parametrize(("codec", "container"), [("vp9", "webm"), ("vp9", "mkv"), ("prores_4444", "mov"), ("ffv1", "mkv")])
def test_output_has_the_sources_alpha(tmp_path: Path, speech: AudioInfo, codec: CodecName, container: ContainerName) -> None:
    source = replace(probe_video(make(tmp_path, SOURCES[0])), frame_rate=Fraction(4), orientation=Orientation(90, True))
    encoding = Encoding(codec=codec, container=container, lossless=codec != "prores_4444")
    output = choose_output(encoding, source)
    assert output.keeps_alpha and not [note for note in output.notes if "black" in note]
    info = replace(source, keeps_alpha=True)
    made = [picture(number, info.working_pix_fmt) for number in range(13)]
    segments = write_pictures(tmp_path / "segments", info, speech, encoding, made)
    files = [segment.file.path for segment in segments.finished]
    assert len(files) == 2
    played = [movie(segments, info, encoding)]
    if container == "webm":
        played.append(tmp_path / "live.webm")
        played[1].write_bytes(b"".join(file.read_bytes()[read_init_bytes(file) if file != files[0] else 0 :] for file in files))
    for path in played:
        found = probe_video(path)
        assert found.has_alpha and found.orientation == Orientation(90, True)
        planes = frames(replace(found, keeps_alpha=True))
        assert len(planes) == 13
        for number, (luma, _, _, alpha) in enumerate(planes):
            most = 255 if codec != "prores_4444" else 1023
            assert np.array_equal(alpha, np.round(alpha_of(number) * (most / 255))), "ProRes compresses alpha without loss"
            assert number_of((luma >> (2 if luma.dtype == np.uint16 else 0)).astype(np.uint8)) == number


def test_alpha_that_cannot_be_kept_is_refused_where_asked_for_and_noted_where_not(tmp_path: Path) -> None:
    info = probe_video(make(tmp_path, SOURCES[0]))
    with pytest.raises(InvalidOption, match="give vp9 in webm, vp9 in mkv, prores_4444 in mov"):
        choose_output(Encoding(alpha="keep"), info)
    with pytest.raises(InvalidOption, match="has no alpha to keep"):
        choose_output(Encoding(codec="vp9", alpha="keep"), replace(info, has_alpha=False))
    assert choose_output(Encoding(), info).notes == ("The source's pictures have alpha; they were laid over black.",)
    assert not choose_output(Encoding(codec="vp9", alpha="flatten"), info).keeps_alpha
    assert choose_output(Encoding(codec="vp9", alpha="keep"), info).pix_fmt == "yuva420p"
