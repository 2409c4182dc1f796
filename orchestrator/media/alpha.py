"""Pictures with an alpha channel: decoders that see it, formats that keep it, and what becomes of it where it is not kept."""

from collections.abc import Iterator

import av
import numpy as np
from av.container import InputContainer
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream
from numpy.typing import NDArray

from orchestrator.media.container import UNUSABLE, packets_of
from orchestrator.media.formats import PixelLayout
from orchestrator.media.planes import sample_views

_ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
"""FFmpeg's own VP8 and VP9 decoders do not look at the second stream in which WebM keeps alpha; these do."""

ALPHA_FORMATS = {
    "yuv420p": "yuva420p",
    "yuv444p": "yuva444p",
    "yuv420p10le": "yuva420p10le",
    "yuv422p10le": "yuva422p10le",
    "yuv444p10le": "yuva444p10le",
}
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


def decoded(container: InputContainer, stream: VideoStream, *, sees_alpha: bool = True) -> Iterator[av.VideoFrame]:
    """Yield a stream's pictures from where the file is read on, with alpha where it has some, and without those of damaged packets.

    What the container says of the pictures, such as their turn, stands beside those of the stream's own decoder, which may not see alpha.

    Raises:
        av.FFmpegError: there are no others.
    """
    decoder = decoder_of(stream) if sees_alpha else stream.codec_context
    fault: av.FFmpegError | None = None
    is_empty = True
    for packet in packets_of(container, stream):
        try:
            pictures = packet.decode() if decoder is stream.codec_context else decoder.decode(packet)
        except UNUSABLE as exc:
            fault = exc
            continue
        is_empty = is_empty and not pictures
        yield from pictures
    if is_empty and fault is not None:
        raise fault


def has_alpha(pix_fmt: str) -> bool:
    """Tell whether a pixel format has alpha; a palette may have it."""
    return pix_fmt == "pal8" or any(component.is_alpha for component in av.VideoFormat(pix_fmt, 64, 64).components)


def is_opaque(picture: av.VideoFrame) -> bool:
    """Tell whether no sample of a picture with alpha lets anything through."""
    rgba: NDArray[np.uint8] = np.asarray(picture.reformat(format="rgba").to_ndarray(), np.uint8)
    return bool((rgba[:, :, 3] == 255).all())


def copy_alpha(source: av.VideoFrame, target: av.VideoFrame) -> None:
    """Put a picture's alpha into what swscale made of it, opaque as opaque: swscale makes 254 of RGB's 255, and 1020 of 1023 in 10 bits."""
    if (source.width, source.height) != (target.width, target.height):
        return  # scaled, too: what swscale made is as near as can be
    is_planar = source.format.name.startswith("yuva")
    alpha = sample_views(source)[3] if is_planar else source.reformat(format="rgba").to_ndarray()[:, :, 3]
    most, wanted = ((1 << PixelLayout.of(name).bits) - 1 for name in (source.format.name if is_planar else "rgba", target.format.name))
    sample_views(target)[3][:] = (2 * alpha.astype(np.int32) * wanted + most) // (2 * most)


def flatten(picture: av.VideoFrame, *, full_range: bool) -> av.VideoFrame:
    """Return a picture in one of `ALPHA_FORMATS` laid over black, without its alpha. Opaque samples are bit-identical."""
    *colours, alpha = sample_views(picture)
    flat = av.VideoFrame(picture.width, picture.height, picture.format.name.replace("yuva", "yuv"))
    flat.pts, flat.time_base = picture.pts, picture.time_base
    most, unit = (1023, 4) if alpha.dtype == np.uint16 else (255, 1)
    for target, source, black in zip(sample_views(flat), colours, (_BLACK[full_range] * unit, 128 * unit, 128 * unit), strict=True):
        height, width = source.shape
        down, across = alpha.shape[0] // height, alpha.shape[1] // width
        covered = alpha.reshape(height, down, width, across).sum((1, 3), dtype=np.int32)
        opaque = most * down * across
        target[:] = black + (2 * (source.astype(np.int32) - black) * covered + opaque) // (2 * opaque)
    return flat
