"""Pictures with an alpha channel: decoders that see it, formats that keep it, and what becomes of it where it is not kept."""

from collections.abc import Iterator

import av
import numpy as np
from av.container import InputContainer
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream
from numpy.typing import NDArray

_ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
"""FFmpeg's own VP8 and VP9 decoders do not look at the second stream in which WebM keeps alpha; these do."""

ALPHA_FORMATS = {"yuv420p": "yuva420p", "yuv444p": "yuva444p"}
"""Formats that pictures with alpha are edited in, by the format their colours are edited in."""

_BLACK = {False: 16, True: 0}
"""Luma of black in limited and in full range."""


def says_alpha(stream: VideoStream) -> bool:
    """Tell whether WebM or Matroska says that a stream has alpha."""
    return stream.metadata.get("alpha_mode") == "1" or stream.metadata.get("ALPHA_MODE") == "1"


def decoder_of(stream: VideoStream) -> VideoCodecContext:
    """Return the decoder that sees everything a stream has: its own, or one that sees alpha, too."""
    own = stream.codec_context
    if not says_alpha(stream) or own.name not in _ALPHA_DECODERS:
        return own
    seeing = VideoCodecContext.create(_ALPHA_DECODERS[own.name], "r")
    assert isinstance(seeing, VideoCodecContext)
    seeing.extradata = own.extradata
    return seeing


def decoded(container: InputContainer, stream: VideoStream) -> Iterator[av.VideoFrame]:
    """Yield a stream's pictures from where the file is read on, with alpha where it has some."""
    decoder = decoder_of(stream)
    if decoder is stream.codec_context:
        yield from container.decode(stream)
        return
    for packet in container.demux(stream):
        yield from decoder.decode(packet)


def has_alpha(pix_fmt: str) -> bool:
    """Tell whether a pixel format has alpha; a palette may have it."""
    return pix_fmt == "pal8" or any(component.is_alpha for component in av.VideoFormat(pix_fmt, 64, 64).components)


def is_opaque(picture: av.VideoFrame) -> bool:
    """Tell whether no sample of a picture with alpha lets anything through."""
    rgba: NDArray[np.uint8] = np.asarray(picture.reformat(format="rgba").to_ndarray(), np.uint8)
    return bool((rgba[:, :, 3] == 255).all())


def copy_alpha(source: av.VideoFrame, target: av.VideoFrame) -> None:
    """Put a picture's alpha into one in yuva420p or yuva444p, which swscale made of it: from RGB it makes 254 of 255."""
    if not source.format.name.startswith("yuva"):
        _view(target.planes[3])[:] = source.reformat(target.width, target.height, format="rgba").to_ndarray()[:, :, 3]


def flatten(picture: av.VideoFrame, *, full_range: bool) -> av.VideoFrame:
    """Return a picture in yuva420p or yuva444p laid over black, without its alpha. Opaque samples are bit-identical."""
    *colours, alpha = (_view(plane) for plane in picture.planes)
    flat = av.VideoFrame(picture.width, picture.height, picture.format.name.replace("yuva", "yuv"))
    flat.pts, flat.time_base = picture.pts, picture.time_base
    for target, source, black in zip(flat.planes, colours, (_BLACK[full_range], 128, 128), strict=True):
        step = alpha.shape[0] // source.shape[0]
        height, width = source.shape
        covered = alpha.reshape(height, step, width, step).sum((1, 3), dtype=np.int32)
        opaque = 255 * step * step
        _view(target)[:] = black + (2 * (source.astype(np.int32) - black) * covered + opaque) // (2 * opaque)
    return flat


def _view(plane: av.video.plane.VideoPlane) -> NDArray[np.uint8]:
    samples: NDArray[np.uint8] = np.frombuffer(memoryview(plane), np.uint8)
    return samples.reshape(plane.height, plane.line_size)[:, : plane.width]
