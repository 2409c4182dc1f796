"""Decoding on an NVIDIA GPU (NVDEC): of which videos it gives the pictures that software gives, to the bit, and whether it is used here."""

import logging
from functools import cache

import av
import numpy as np
from av.codec.hwaccel import HWAccel

from orchestrator.errors import GpuUnavailable
from orchestrator.media.encoders import decoded_packets, driver_fault, sample_packets
from orchestrator.media.formats import CODECS
from orchestrator.media.planes import sample_views
from orchestrator.media.probe import VideoInfo
from orchestrator.settings import DecoderChoice, Settings
from orchestrator.tuned import read_tuned

log = logging.getLogger("lipsync.media")

PIXEL_FORMAT = "nv12"
"""In which pictures come from the GPU; FFmpeg makes yuv420p of it without changing a sample. A picture in another one was decoded in software."""

_EXACT_CODECS = ("h264", "hevc", "vp9")
"""Codecs whose decoders have to give the same bits, by FFmpeg's names. Those of MPEG-2 and MPEG-4 part 2 may round differently; AV1's software
decoder is another one than the one that can use the GPU."""


def accelerator(info: VideoInfo) -> HWAccel | None:
    """Return what FFmpeg decodes a video with, None for its own software: pictures of 8 bits and 4:2:0 in whole frames go to the GPU where asked."""
    is_exact = info.codec in _EXACT_CODECS and info.pix_fmt == "yuv420p" and not info.is_interlaced
    return _cuda() if info.decoder == "nvdec" and is_exact else None


@cache
def nvdec_problem() -> str | None:
    """Decode a few pictures with NVDEC; return why it cannot be used here, or None."""
    packets = sample_packets(CODECS["h264"].software)
    try:
        found = decoded_packets("h264", packets, _cuda())
    except (av.FFmpegError, OSError, NotImplementedError) as exc:
        return driver_fault(exc)
    if any(picture.format.name != PIXEL_FORMAT for picture in found):
        return "it decodes no H.264"
    expected = decoded_packets("h264", packets)
    is_same = len(found) == len(expected) and all(
        np.array_equal(one, other)
        for picture, wanted in zip(found, expected, strict=True)
        for one, other in zip(sample_views(picture.reformat(format="yuv420p")), sample_views(wanted), strict=True)
    )
    return None if is_same else "its pictures are not those of software"


def chosen_decoder(settings: Settings) -> DecoderChoice:
    """Return what decodes videos on this host: what was set, else what `lipsync tune` measured, else software.

    Raises:
        GpuUnavailable: NVDEC was set and cannot be used.
    """
    tuned = read_tuned(settings.data)
    choice = settings.decoder or ("software" if tuned is None else tuned.decoder)
    if choice == "software" or (problem := nvdec_problem()) is None:
        return choice
    if settings.decoder is not None:
        raise GpuUnavailable(f"NVDEC cannot be used ({problem}); mend that, or leave LIPSYNC_DECODER unset: software gives the same pictures.")
    log.warning("NVDEC, which `lipsync tune` chose, cannot be used (%s); software decodes. Run it again to choose anew.", problem)
    return "software"


def _cuda() -> HWAccel:
    return HWAccel("cuda", options={"primary_ctx": "1"})  # one context for all videos, not one each
