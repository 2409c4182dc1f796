"""FFmpeg's encoders: how each is told what is wanted so that it makes the same bits every time, and whether NVENC works here."""

import os
from contextlib import suppress
from fractions import Fraction
from functools import cache
from pathlib import Path

import av
import numpy as np
from av.codec.hwaccel import HWAccel
from av.video.codeccontext import VideoCodecContext

from orchestrator.media.encoding import Encoding
from orchestrator.media.formats import PRESETS, Encoder
from orchestrator.media.light import CARRIERS, Light

DEFAULT_PRESET = "veryfast"

_X265_FRAME_THREADS = 2
"""Pictures that x265 works on at a time. It shapes the bits, so it is not left to the number of cores; rows of a picture run in parallel anyway."""

_X264_RATE_TOLERANCE = 0.03
"""How far x264's rate control may stray. Left at 1, it begins cautiously, and segments end before it has learned: measured at 720p, 75 to 80 % of
1 to 8 Mbit/s; so 97 to 98 %. (With a decoder's buffer its bits differ from run to run.)"""

_FFV1_SLICES = 4
"""Parts of a picture that FFV1 works on at a time; it shapes the bits."""

_AV1_QP_STEPS = 4
"""Of NVENC's scale for AV1, which is the format's own from 0 to 255, in one step of `crf`, as SVT-AV1 and libaom count."""

_SVT_QUIET = "0"

_PROBE_FRAMES, _PROBE_SIZE_WH = 20, (320, 192)


def encoder_options(encoder: Encoder, encoding: Encoding, *, has_alpha: bool, light: Light | None = None) -> dict[str, str]:
    """Return the private options of an encoder, the bit rate not among them; `light` is written where the encoder is one of `CARRIERS`."""
    preset = encoder.presets[PRESETS.index(encoding.preset or DEFAULT_PRESET)] if encoder.presets else ""
    crf = str(encoder.default_crf if encoding.crf is None else encoding.crf)
    quality = {} if encoding.bitrate or encoding.lossless else {"crf": crf}
    told = () if light is None or encoder.name not in CARRIERS else light.parameters(encoder.name)
    if encoder.name == "libx264":
        rate = [f"ratetol={_X264_RATE_TOLERANCE}"] if encoding.bitrate else []
        parameters = ":".join([*_x264_reproducible(), *rate, *told])
        return {"preset": preset, **({"qp": "0"} if encoding.lossless else quality), **({"x264-params": parameters} if parameters else {})}
    if encoder.name == "libx265":
        lossless = ["lossless=1"] if encoding.lossless else []
        parameters = ":".join(["log-level=error", "open-gop=0", "info=0", f"frame-threads={_X265_FRAME_THREADS}", *lossless, *told])
        return {"preset": preset, **quality, "x265-params": parameters}
    if encoder.name == "libsvtav1":
        os.environ.setdefault("SVT_LOG", _SVT_QUIET)  # else it writes its settings to standard error; its failures come as error codes too
        parameters = ":".join([*(["lossless=1"] if encoding.lossless else []), *told])
        return {"preset": preset, **quality, **({"svtav1-params": parameters} if parameters else {})}
    if encoder.name == "libvpx-vp9":
        # libvpx cannot hide reference frames in a stream with alpha.
        hidden = {"auto-alt-ref": "0"} if has_alpha else {}
        return {"deadline": "good", "cpu-used": preset, "row-mt": "1", **hidden, **({"lossless": "1"} if encoding.lossless else quality)}
    if encoder.name == "prores_ks":
        return {"profile": "4444" if "444" in encoder.pix_fmts[0] else "hq", "vendor": "apl0"}
    if encoder.name == "ffv1":
        return {"level": "3", "slices": str(_FFV1_SLICES), "slicecrc": "1"}
    qp = str(int(crf) * _AV1_QP_STEPS) if encoder.name == "av1_nvenc" else crf
    return {"preset": preset, **({} if encoding.bitrate else {"rc": "constqp", "qp": qp}), "forced-idr": "1", "b_ref_mode": "disabled"}


def set_up(context: VideoCodecContext, encoder: Encoder, encoding: Encoding, gop_frames: int) -> None:
    """Say how many threads, key frames and bits a context has."""
    # FRAME, since PyAV's default makes x264 cut each picture into slices; the count is stated, since it shapes the bitstream.
    context.thread_type = "SLICE" if encoder.name == "ffv1" else "FRAME"
    context.thread_count = encoding.resolved_thread_count
    context.gop_size = 1 if encoder.name == "ffv1" else gop_frames
    context.bit_rate = encoding.bitrate or 0


def open_encoder(context: VideoCodecContext) -> None:
    """Open an encoder that is set up, and leave its threads, and the one that calls, the priority this one has.

    SVT-AV1 makes them real-time threads where it may (as root), which then keep everything else on the host from the cores, Triton first.
    """
    policy = os.sched_getscheduler(0)
    context.open(strict=False)
    if context.name == "libsvtav1" and policy == os.SCHED_OTHER:
        for thread in (int(task.name) for task in Path("/proc/self/task").iterdir()):
            with suppress(OSError):  # it has ended, or is not ours to change
                if os.sched_getscheduler(thread) == os.SCHED_FIFO:
                    os.sched_setscheduler(thread, policy, os.sched_param(0))


@cache
def _x264_reproducible() -> tuple[str, ...]:
    """Return the parameters that make x264 give the same bits every time.

    Its AVX-512 code reads past the end of rows whose width in macroblocks is uneven (measured: 854x480, 400x300 and others differ from run to
    run with every preset that has a macroblock tree); the AVX2 code gives what AVX and SSE give, and is no slower.
    """
    flags = Path("/proc/cpuinfo").read_text().split()
    return ("asm=AVX2",) if "avx512f" in flags else ()


@cache
def nvenc_problem(encoder: Encoder) -> str | None:
    """Try an NVENC encoder twice on a few pictures; return why it cannot be used here, or None."""
    try:
        first, second = (sample_packets(encoder) for _ in range(2))
        pictures = len(decoded_packets(av.Codec(encoder.name, "w").canonical_name, first))
    except (av.FFmpegError, OSError, ValueError) as exc:
        return driver_fault(exc)
    if pictures != _PROBE_FRAMES:
        return f"{pictures} of {_PROBE_FRAMES} pictures came back"
    return None if first == second else "it does not give the same bits twice"


def driver_fault(error: Exception) -> str:
    """Return what an error of NVENC or NVDEC means."""
    if isinstance(error, PermissionError):  # what FFmpeg makes of a library that it cannot load
        return (
            "the driver's libraries libcuda.so.1 and libnvidia-encode.so.1 or libnvcuvid.so.1 are not there; a container needs its capability `video`"
        )
    return str(getattr(error, "strerror", None) or error)


def sample_packets(encoder: Encoder) -> list[bytes]:
    """Return the packets of a few moving pictures."""
    context = VideoCodecContext.create(encoder.name, "w")
    assert isinstance(context, VideoCodecContext)
    context.width, context.height = _PROBE_SIZE_WH
    context.pix_fmt = encoder.pix_fmts[0]
    context.time_base, context.framerate = Fraction(1, 25), Fraction(25)
    set_up(context, encoder, Encoding(thread_count=1), _PROBE_FRAMES)
    context.options = encoder_options(encoder, Encoding(thread_count=1), has_alpha=False)
    width, height = _PROBE_SIZE_WH
    gradient = np.add.outer(np.arange(height * 3 // 2), np.arange(width))
    packets: list[bytes] = []
    for number in range(_PROBE_FRAMES):
        picture = av.VideoFrame.from_ndarray(((gradient + 4 * number) % 256).astype(np.uint8), "yuv420p").reformat(format=encoder.pix_fmts[0])
        picture.pts, picture.time_base = number, Fraction(1, 25)
        packets += [bytes(packet) for packet in context.encode(picture)]
    return packets + [bytes(packet) for packet in context.encode(None)]


def decoded_packets(codec: str, packets: list[bytes], hwaccel: HWAccel | None = None) -> list[av.VideoFrame]:
    """Return the pictures that come out of packets."""
    decoder = VideoCodecContext.create(codec, "r", hwaccel)
    assert isinstance(decoder, VideoCodecContext)
    return [picture for packet in (*map(av.Packet, packets), None) for picture in decoder.decode(packet)]


def encoder_version() -> str:
    """Return which encoders these are: others may make other bits of the same pictures."""
    return f"PyAV {av.__version__}, libavcodec {'.'.join(map(str, av.library_versions['libavcodec']))}"
