"""Opening media files: which protocols and formats are allowed, and how FFmpeg's errors become ours."""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import av
from av.audio.stream import AudioStream
from av.codec.hwaccel import HWAccel
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from orchestrator.errors import EncodeError, MissingFile, StorageFull, UnreadableMedia
from orchestrator.files import FULL
from orchestrator.media.webp import Animation

_StreamT = TypeVar("_StreamT", VideoStream, AudioStream)

PROTOCOLS = "file"
"""FFmpeg may read local files and nothing else, whatever a playlist inside the input says."""

FORMATS = ",".join(
    (
        "aac,ac3,aiff,amr,ape,asf,avi,eac3,flac,flv,gif,matroska,webm,mov,mp4,m4a,3gp,3g2,mj2,mp3,mpeg,mpegts,mpegvideo,h264,hevc,av1,ivf,obu",
        "m4v,mjpeg,h261,h263,dirac,yuv4mpegpipe,dts,dtshd,truehd,mlp,loas,voc,sox,g722,gsm,j2k_pipe,qoi_pipe,ppm_pipe,pgm_pipe,pam_pipe",
        "wtv,swf,pva,dhav,live_flv,kux,cine,flic,vc1,vc1test,cavsvideo,vvc,apv,dnxhd",
        "adx,amrnb,amrwb,aptx,aptx_hd,ast,dsf,iff,ilbc,ircam,mpc,mpc8,nistsphere,oma,osq,pvf,qcp,rka,sbc,shn,spdif,tak,wavarc,wsd,xwma",
        "dds_pipe,dpx_pipe,exr_pipe,hdr_pipe,ico,jpegls_pipe,pbm_pipe,pcx_pipe,pfm_pipe,pgmyuv_pipe,phm_pipe,psd_pipe,sgi_pipe,sunrast_pipe,xbm_pipe",
        "xpm_pipe,xwd_pipe,mxf,ogg,w64,wav,caf,au,wv,tta,dv,nut,rm,apng,image2,png_pipe,jpeg_pipe,webp_pipe,bmp_pipe,tiff_pipe,gif_pipe,jpegxl_pipe",
    )
)
"""Demuxers that may open an input. Playlists and scripts (hls, concat, dash, ...) are not among them: they name further files. Nor are those
of consoles' games, those that say nothing of what is in them (raw samples), and those this FFmpeg has no decoder for or reads badly (GXF)."""

_OPTIONS = {"protocol_whitelist": PROTOCOLS, "format_whitelist": FORMATS, "pattern_type": "none", "max_size": "65536"}
"""With pattern type "none" a picture named `a%03d.png` is that picture, not the sequence `a001.png`, `a002.png`, ... beside it. The size is that of
WAV's packets, which have 4096 bytes otherwise: what is done for each of them took as long as the sound in them."""

_DECLARES_ITS_LENGTH = ("mov", "matroska", "wav", "flac", "caf", "aiff", "w64")
"""Containers whose header states the real duration; in others it is an estimate that proves nothing."""

MAY_JUMP = ("mpegts", "mpeg")
"""Containers, by `format_of`, whose time stamps may begin anew in mid-stream: MPEG transport and program streams."""

_HAS_PAUSES = ("mov", "matroska", "mpegts", "mpeg", "flv", "asf")
"""Containers that store when each packet is heard, so that a gap between two is meant; in others something was lost there."""

_UNTIMED = ("mpegvideo", "m4v", "mjpeg", "h261", "h263", "dirac", "vc1", "cavsvideo", "dnxhd")
"""Bare streams, by `format_of`, whose time stamps FFmpeg makes up, as if there were 25 frames a second."""

UNUSABLE = (av.InvalidDataError, av.ExternalError, av.PatchWelcomeError, av.ArgumentError)
"""What decoders say of a packet they can make nothing of: it is damaged, zlib or another library finds it so, or damage looks like a feature that
FFmpeg does not have. Whoever decodes goes on behind it, as FFmpeg's own program does."""

_UNKNOWN_RIFF_BYTES = 0x7FFF0000
"""RIFF lengths from here on mean "unknown"."""


@contextmanager
def open_media(path: Path, hwaccel: HWAccel | None = None) -> Iterator[InputContainer]:
    """Open a media file for reading; its pictures are decoded with `hwaccel` where that can do it.

    Raises:
        MissingFile: there is no such file.
        UnreadableMedia: it cannot be opened, or fails inside the `with` block.
        LimitExceeded: it is an animated WebP that is too large.
    """
    if not path.is_file():
        raise MissingFile(f"There is no file at {path}; check the path.")
    if path.stat().st_size == 0:
        raise UnreadableMedia(f"{path.name} is empty (0 bytes); upload it again.")
    if animation := Animation.of(path):
        with translate_errors(path), animation.open() as container:
            yield container
        return
    # "file:" keeps a name such as "concat:a|b" from being read as a protocol; titles in another encoding than UTF-8 are no concern here.
    with translate_errors(path), av.open(f"file:{path}", options=_OPTIONS, metadata_errors="replace", hwaccel=hwaccel) as container:
        yield container


def packets_of(container: InputContainer, stream: _StreamT) -> "Iterator[Packet[_StreamT]]":
    """Yield a stream's packets, and behind them the empty one that has a decoder hand out what it holds.

    Those without a byte in between, with which Theora says that the picture stays as it is, are left out: decoders refuse them.
    """
    is_untimed = format_of(container) in _UNTIMED
    for packet in container.demux(stream):
        if packet.size or packet.dts is None:
            if is_untimed:
                packet.pts = packet.dts = None
            yield packet


def format_of(container: InputContainer) -> str:
    """Return FFmpeg's names of a container, separated by commas; "webp" for an animated WebP, which FFmpeg does not know."""
    return "webp" if container.file else container.format.name


def declares_its_length(container: InputContainer) -> bool:
    """Tell whether a container's header states the real duration, so that less of it means a truncated file."""
    return any(name in format_of(container) for name in _DECLARES_ITS_LENGTH)


def has_pauses(container: InputContainer) -> bool:
    """Tell whether a gap in the time stamps of a container's sound is a pause."""
    return any(name in format_of(container).split(",") for name in _HAS_PAUSES)


def refuse_truncated_riff(path: Path) -> None:
    """Compare the length in a WAV's or AVI's header with the file's. FFmpeg silently takes what is there.

    Raises:
        UnreadableMedia: the file is shorter.
    """
    with path.open("rb") as file:
        magic, declared_bytes = struct.unpack("<4sI", file.read(8))
    missing_bytes = declared_bytes + 8 - path.stat().st_size
    # Programs that write to a pipe cannot know the length and put down the largest number they can think of.
    if magic == b"RIFF" and missing_bytes > 0 and declared_bytes < _UNKNOWN_RIFF_BYTES:
        raise UnreadableMedia(f"{path.name} is truncated: its header promises {missing_bytes} bytes more than there are; copy or export it again.")


@contextmanager
def translate_errors(path: Path) -> Iterator[None]:
    """Raise FFmpeg's errors about an input as `UnreadableMedia`."""
    try:
        yield
    except av.FFmpegError as exc:
        # FFmpeg has no words for some of its own numbers.
        fault = "it is damaged" if str(exc.strerror).startswith("Error number") else exc.strerror
        raise UnreadableMedia(f"{path.name} cannot be read as video or audio ({fault}); check that it plays, or convert it to MP4 or WAV.") from exc


@contextmanager
def translate_write_errors() -> Iterator[None]:
    """Raise FFmpeg's errors about an output as ours."""
    try:
        yield
    except av.FFmpegError as exc:
        if exc.errno in FULL:
            raise StorageFull(f"There is no space for the output ({exc.strerror}); free some space, then try again.") from exc
        raise EncodeError(f"The output could not be encoded ({exc.strerror}); check the free space and the encoding options.") from exc
