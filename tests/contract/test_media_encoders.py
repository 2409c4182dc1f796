"""What each encoder is told, NVENC's included, is what FFmpeg's encoder of that name takes: FFmpeg itself drops an option it does not know."""

import ctypes
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import av
import pytest

from orchestrator.media.encoders import encoder_options
from orchestrator.media.encoding import Encoding
from orchestrator.media.formats import CODECS, PRESETS, Encoder, VideoCodec

ENCODERS = [
    pytest.param(codec, encoder, id=encoder.name if not codec.is_master else codec.name)
    for codec in CODECS.values()
    for encoder in (codec.software, codec.nvenc)
    if encoder is not None
]

AV_OPT_SEARCH_CHILDREN = 1


@pytest.fixture(scope="module")
def set_option() -> Callable[[str, str, str], int]:
    """FFmpeg's own av_opt_set for an encoder, in the libraries that PyAV brings: 0 where it takes the option."""
    folder = Path(av.__file__).parent.parent / "av.libs"
    avcodec, avutil = (ctypes.CDLL(str(next(folder.glob(f"{name}-*.so*")))) for name in ("libavcodec", "libavutil"))
    avcodec.avcodec_find_encoder_by_name.restype = avcodec.avcodec_alloc_context3.restype = ctypes.c_void_p

    def set_option(encoder: str, name: str, value: str) -> int:
        found = ctypes.c_void_p(avcodec.avcodec_find_encoder_by_name(encoder.encode()))
        context = ctypes.c_void_p(avcodec.avcodec_alloc_context3(found))
        result = int(avutil.av_opt_set(context, name.encode(), value.encode(), AV_OPT_SEARCH_CHILDREN))
        avcodec.avcodec_free_context(ctypes.byref(context))
        return result

    return set_option


def encodings(codec: VideoCodec, encoder: Encoder) -> Iterator[Encoding]:
    usual = Encoding(codec=codec.name)
    yield from (replace(usual, preset=preset) for preset in PRESETS if encoder.presets)
    yield from (replace(usual, crf=crf) for crf in encoder.crf_range or ())
    if encoder.takes_bitrate:
        yield replace(usual, bitrate=4_000_000)
    if encoder.lossless_pix_fmts:
        yield replace(usual, lossless=True)
    yield usual


@pytest.mark.parametrize(("codec", "encoder"), ENCODERS)
def test_encoder_takes_every_option_it_is_told(codec: VideoCodec, encoder: Encoder, set_option: Callable[[str, str, str], int]) -> None:
    assert set_option(encoder.name, "no-such-option", "1") != 0
    told = {
        option
        for encoding in encodings(codec, encoder)
        for alpha in (False, True)
        for option in encoder_options(encoder, encoding, has_alpha=alpha).items()
    }
    assert told
    assert [option for option in sorted(told) if set_option(encoder.name, *option) != 0] == []


@pytest.mark.parametrize(("codec", "encoder"), ENCODERS)
def test_encoder_takes_every_pixel_format_it_is_given(codec: VideoCodec, encoder: Encoder) -> None:
    taken = {pix_fmt.name for pix_fmt in av.Codec(encoder.name, "w").video_formats or ()}
    assert set(encoder.pix_fmts) <= taken


def test_quality_means_the_same_to_every_av1_encoder(set_option: Callable[[str, str, str], int]) -> None:
    """SVT-AV1 and libaom count in 64 steps, which stand for 0, 4, 8, ... 240, 244, 249 and 255 of the format's scale; NVENC counts in that."""
    nvenc = CODECS["av1"].nvenc
    assert nvenc is not None
    assert (set_option("av1_nvenc", "qp", "255"), set_option("h264_nvenc", "qp", "51")) == (0, 0)
    assert set_option("av1_nvenc", "qp", "256") != 0 and set_option("h264_nvenc", "qp", "52") != 0
    steps = {crf: int(encoder_options(nvenc, Encoding(codec="av1", crf=crf), has_alpha=False)["qp"]) for crf in (0, 22, 40, 60, 63)}
    assert steps == {0: 0, 22: 88, 40: 160, 60: 240, 63: 252}
