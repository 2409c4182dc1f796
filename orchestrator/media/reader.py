"""Decoding: frames of a video by their number, forwards and backwards, as editable YUV planes."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream
from numpy.typing import NDArray

from orchestrator.cores import available_cores
from orchestrator.errors import UnreadableMedia
from orchestrator.media.alpha import ALPHA_FORMATS, copy_alpha, decoder_of, flatten
from orchestrator.media.container import UNUSABLE, open_media, packets_of, translate_errors
from orchestrator.media.deinterlace import deinterlaced
from orchestrator.media.nvdec import PIXEL_FORMAT, accelerator
from orchestrator.media.planes import sample_views
from orchestrator.media.probe import SUBSAMPLING_XY, VideoInfo, bits_of, video_stream
from orchestrator.media.times import MISSING_PTS
from orchestrator.media.tone import to_sdr
from preprocess.hdr import sdr_curve
from preprocess.yuv import ColourMatrix, YuvImage, colour_matrix

log = logging.getLogger("lipsync.media")

REVERSE_BUFFER_BYTES = 128 * 1024 * 1024
"""Decoded frames held while reading backwards. A longer group of pictures is decoded again for each piece that fits."""

_LUMA_WEIGHTS = {
    1: (0.2126, 0.0722),
    4: (0.30, 0.11),
    5: (0.299, 0.114),
    6: (0.299, 0.114),
    7: (0.212, 0.087),
    9: (0.2627, 0.0593),
    10: (0.2627, 0.0593),
}
"""Kr and Kb by FFmpeg's AVColorSpace (ITU-T H.273 table 4)."""

_READ_FROM_START = ("mpeg", "webp")
"""Containers in which there is no seeking: MPEG-PS stamps only some frames, and FFmpeg counts the others from where it landed. Each frame of an
animated WebP is drawn over those before it."""

Picture = av.VideoFrame
"""A decoded or editable picture, as the stages hand it on."""


@dataclass(frozen=True, slots=True)
class DecodedFrame:
    """One frame of the source."""

    index: int
    """Position in presentation order, from 0."""
    picture: Picture
    """The decoded picture in the working format and size; no other `DecodedFrame` shares it."""
    is_key: bool
    """Whether decoding can start here."""

    def scaled_rgb(self, size_wh: tuple[int, int]) -> NDArray[np.uint8]:
        """Return the picture as (h, w, 3) RGB of another size, in one pass."""
        # FFmpeg would start threads for each frame anew; they cost a fifth of decoding and scaling, and change no bit.
        return np.asarray(self.picture.reformat(*size_wh, format="rgb24", interpolation="AREA", threads=1).to_ndarray(), np.uint8)


@dataclass(frozen=True, slots=True)
class FrameIndex:
    """Where the frames of a video are, as met while decoding it once from its start."""

    pts: NDArray[np.int64]
    """(N,) presentation time stamps, ticks of the stream's time base."""
    is_key: NDArray[np.bool_]
    """(N,) whether decoding can start there."""

    def __len__(self) -> int:
        return len(self.pts)

    @property
    def is_seekable(self) -> bool:
        """Whether a time stamp names exactly one frame; if not, frames are found by counting from the start."""
        return bool(np.all(np.diff(self.pts) > 0)) and int(self.pts[0]) != MISSING_PTS


DECODER_THREADS = 4
"""Most threads of a decoder. Encoding takes several times as long as decoding, and each thread holds pictures of its own: a decoder of 1080p H.264
takes 31 MB with one thread, 41 with 2, 55 with 4, 81 with 8 and 128 with 16."""


class _NotOnGpu(Exception):
    """NVDEC does not decode this video, or not any longer."""


class VideoReader:
    """A video opened for decoding. Not to be used by two threads at once.

    Where NVDEC is asked for and gives up, software goes on from the picture that is missing.

    `tick` is called between any two packets; what it raises ends the decoding. A reader that works beside another one of the same render
    (`is_beside`) has half as many threads. One whose pictures are only looked at (`is_for_looking`) leaves the loop filter out of those that no
    other picture refers to: a tenth of the decoding, which shows at the edges of blocks alone.

    Raises:
        UnreadableMedia: FFmpeg cannot open the file.
    """

    def __init__(self, info: VideoInfo, tick: Callable[[], None] = lambda: None, *, is_beside: bool = False, is_for_looking: bool = False) -> None:
        self._info = info
        self._tick = tick
        threads = min(DECODER_THREADS, available_cores())
        self._thread_count = max(1, threads // 2) if is_beside else threads
        self._decoder_options = {"skip_loop_filter": "noref"} if is_for_looking else {}
        self._accelerator = accelerator(info)
        self._open()
        self.damaged_packet_count = 0
        """Packets the decoder could not use; the picture before is shown in their place."""

    def _open(self) -> None:
        try:
            self._opening = open_media(self._info.path, self._accelerator)
            self._container: InputContainer = self._opening.__enter__()
        except UnreadableMedia as exc:
            if self._accelerator is None:
                raise
            self._use_software(exc)
            self._open()
            return
        self._stream: VideoStream = video_stream(self._container, self._info.stream_index)
        self._decoder = decoder_of(self._stream)
        # SLICE threading, PyAV's default, leaves all but one core idle on most files.
        self._decoder.thread_type = "AUTO"
        self._decoder.thread_count = self._thread_count if self._accelerator is None else 1
        self._decoder.options = self._decoder_options
        self._is_fresh = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._opening.__exit__(kind, value, trace)

    def decode_from_start(self) -> Iterator[DecodedFrame]:
        """Yield every frame in presentation order."""
        for index, picture in self._progressive(self._to_the_end(lambda _: self._from_start(), 0)):
            yield DecodedFrame(index, self._prepare(picture), bool(picture.key_frame))

    def decode_order(self, index: FrameIndex, order: NDArray[np.int64]) -> Iterator[DecodedFrame]:
        """Yield frames in any order, (N,) of their numbers, which may repeat; best in long stretches one way.

        Reading backwards decodes forwards in pieces that fit `REVERSE_BUFFER_BYTES` and hands each out reversed.

        Raises:
            UnreadableMedia: the file does not decode to the frames of `index` again.
        """
        for stretch in _stretches(order):
            yield from self._shown_forwards(index, stretch) if stretch[0] <= stretch[-1] else self._shown_backwards(index, stretch)

    def _shown_forwards(self, index: FrameIndex, order: NDArray[np.int64]) -> Iterator[DecodedFrame]:
        frames = self._forwards(index, int(order[0]), int(order[-1]) + 1)
        frame = next(frames)
        for place, wanted in enumerate(order):
            while frame.index < wanted:
                frame = next(frames)
            yield self._twin(frame) if place + 1 < len(order) and order[place + 1] == wanted else frame

    def _shown_backwards(self, index: FrameIndex, order: NDArray[np.int64]) -> Iterator[DecodedFrame]:
        piece = max(8, REVERSE_BUFFER_BYTES // self._info.frame_bytes)
        while len(order):
            here = int(np.searchsorted(-order, piece - int(order[0])))
            part, order = order[:here], order[here:]
            wanted = set(part.tolist())
            frames = {frame.index: frame for frame in self._forwards(index, int(part[-1]), int(part[0]) + 1) if frame.index in wanted}
            for place, number in enumerate(part.tolist()):
                yield self._twin(frames[number]) if place + 1 < len(part) and part[place + 1] == number else frames.pop(number)

    def _twin(self, frame: DecodedFrame) -> DecodedFrame:
        """Return a copy of a frame that will be shown again: each is edited on its own."""
        return DecodedFrame(frame.index, _copied(frame.picture, *self._info.working_size_wh), frame.is_key)

    def _forwards(self, index: FrameIndex, start: int, stop: int) -> Iterator[DecodedFrame]:
        wanted = start
        # A frame is deinterlaced by what its neighbours show, so that of the frame before is needed too.
        first = max(0, start - 1) if self._info.is_interlaced else start
        for found, picture in self._progressive(self._to_the_end(lambda wanted: self._decode_near(index, wanted), first)):
            if found < wanted:
                continue
            if found > wanted:
                break
            yield DecodedFrame(wanted, self._prepare(picture), bool(picture.key_frame))
            wanted += 1
            if wanted == stop:
                return
        raise UnreadableMedia(
            f"{self._info.path.name} does not decode to the same frames twice (frame {wanted} was not found again); "
            "convert it to MP4 with constant frame rate."
        )

    def _decode_near(self, index: FrameIndex, start: int) -> Iterator[tuple[int, av.VideoFrame]]:
        """Yield numbered frames, beginning at the key frame before `start` or, where time stamps are no help, at the first frame."""
        can_seek = index.is_seekable and self._info.container not in _READ_FROM_START
        keys = np.flatnonzero(index.is_key[: start + 1]) if can_seek else ()
        for first in reversed([int(key) for key in keys if key]):
            with translate_errors(self._info.path):
                self._container.seek(int(index.pts[first]), stream=self._stream)
            self._decoder.flush_buffers()
            pictures = ((int(np.searchsorted(index.pts, picture.pts)), picture) for picture in self._decode() if picture.pts is not None)
            landed = next(pictures, None)
            # Containers without an index of key frames (MPEG-TS, MPEG-PS) land behind the frame asked for; then from the key frame before.
            if landed is not None and landed[0] <= first:
                yield landed
                yield from pictures
                return
        yield from self._from_start()

    def _from_start(self) -> Iterator[tuple[int, av.VideoFrame]]:
        self._rewind()
        yield from enumerate(self._decode())

    def _to_the_end(self, pictures_near: Callable[[int], Iterator[tuple[int, av.VideoFrame]]], wanted: int) -> Iterator[tuple[int, av.VideoFrame]]:
        """Yield the numbered pictures from `wanted` on; `pictures_near` decodes anew from there, or from before."""
        while True:
            try:
                for number, picture in pictures_near(wanted):
                    if number >= wanted:
                        yield number, picture
                        wanted = number + 1
                return
            except _NotOnGpu as exc:
                self._use_software(exc)
                self._rewind()

    def _use_software(self, fault: Exception) -> None:
        log.warning("NVDEC does not decode a video (%s); software does.", fault)
        self._accelerator = None

    def _decode(self) -> Iterator[av.VideoFrame]:
        self._is_fresh = False
        with translate_errors(self._info.path):
            for packet in packets_of(self._container, self._stream):
                self._tick()
                try:
                    for picture in self._decoder.decode(packet):
                        if self._accelerator is not None and picture.format.name != PIXEL_FORMAT:
                            raise _NotOnGpu(f"it came as {picture.format.name}")
                        if self._decoder is not self._stream.codec_context:
                            picture.key_frame = packet.is_keyframe  # type: ignore[misc]  # libvpx does not say, and hands pictures out at once
                        yield picture
                except av.FFmpegError as exc:
                    if self._accelerator is not None:
                        raise _NotOnGpu(exc.strerror) from exc
                    if not isinstance(exc, UNUSABLE):
                        raise
                    # Of a file's last packets PyAV loses with it what the decoder's other threads hold: at most `DECODER_THREADS` - 1 pictures.
                    self.damaged_packet_count += 1

    def _progressive(self, pictures: Iterator[tuple[int, av.VideoFrame]]) -> Iterator[tuple[int, av.VideoFrame]]:
        return deinterlaced(pictures) if self._info.is_interlaced else pictures

    def _rewind(self) -> None:
        """Go back to the first packet by opening the file anew: seeking to the start misses it in some containers and fails in others."""
        if not self._is_fresh:
            self._opening.__exit__(None, None, None)
            self._open()

    def _prepare(self, picture: av.VideoFrame) -> av.VideoFrame:
        """Return the picture in the working format and size, itself if it has them."""
        prepared = _in_working_format(picture, self._info.as_hdr)
        if self._info.tone_mapped_from is None:
            return prepared
        shown = to_sdr(plane_views(prepared, stream_colour(self._info.as_hdr)))
        shown.pts, shown.time_base = picture.pts, picture.time_base
        width, height = self._info.working_size_wh
        return shown if (shown.width, shown.height) == (width, height) else _copied(shown, width, height)


def _stretches(order: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Yield the longest parts of an order that go one way: not falling, or else not rising. Parts have a first and a last."""
    turns = np.sign(np.diff(order))
    moves = np.flatnonzero(turns)
    changes = np.flatnonzero(np.diff(turns[moves]))
    start = move = 0
    while (change := int(np.searchsorted(changes, move))) < len(changes):
        stop = int(moves[changes[change] + 1]) + 1
        yield order[start:stop]
        start, move = stop, int(changes[change]) + 2
    if start < len(order):
        yield order[start:]


def _in_working_format(picture: av.VideoFrame, info: VideoInfo) -> av.VideoFrame:
    width, height = info.working_size_wh
    is_laid_on_black = info.has_alpha and not info.keeps_alpha
    wanted = ALPHA_FORMATS[info.working_pix_fmt] if is_laid_on_black else info.working_pix_fmt
    if picture.format.name != wanted or (picture.width, picture.height) != info.size_wh:
        # Another size is a change in mid-stream; the output has one size.
        # swscale's own default for RGB is BT.601; what is YUV keeps the matrix it has.
        converted = picture.reformat(
            *info.size_wh,
            format=wanted,
            dst_colorspace="ITU709" if info.is_rgb else None,
            dst_color_range="MPEG" if info.is_rgb else None,
        )
        converted.pts, converted.time_base = picture.pts, picture.time_base
        if info.has_alpha:
            copy_alpha(picture, converted)
        picture = converted
    if (picture.width, picture.height) != (width, height):
        picture = _copied(picture, width, height)
    picture = _within_depth(picture)
    return flatten(picture, full_range=info.is_full_range) if is_laid_on_black else picture


def _within_depth(picture: av.VideoFrame) -> av.VideoFrame:
    """Return a picture without samples of more bits than its format has, itself if there are none.

    Damaged H.264 of 10 bits decodes to some, on which x264 ends the process. FFmpeg marks the damaged picture, but not those predicted from it,
    four of five or more, nor raw video, nor every file of lossless H.264 with a flipped bit (3 of 150 came without a mark or an error);
    so every picture is looked through, which takes 0.3 ms of 1080p.
    """
    most = (1 << bits_of(picture.format.name)) - 1
    if most == 255 or all(int(samples.max()) <= most for samples in sample_views(picture)):
        return picture
    picture = _copied(picture, picture.width, picture.height)
    for samples in sample_views(picture):
        np.minimum(samples, most, out=samples)
    return picture


def _copied(picture: av.VideoFrame, width: int, height: int) -> av.VideoFrame:
    """Return a copy of a picture's upper left part."""
    copy = av.VideoFrame(width, height, picture.format.name)
    copy.pts, copy.time_base = picture.pts, picture.time_base
    for target, source in zip(sample_views(copy), sample_views(picture), strict=True):
        target[:] = source[: target.shape[0], : target.shape[1]]
    return copy


def stream_colour(info: VideoInfo) -> ColourMatrix:
    """Return the colour matrix of a video; an untagged one follows the usual guess (BT.709 from 720 lines up, else BT.601)."""
    default = _LUMA_WEIGHTS[1] if min(info.size_wh) >= 720 else _LUMA_WEIGHTS[6]
    return colour_matrix(*_LUMA_WEIGHTS.get(info.colour.matrix, default), info.is_full_range, sdr_curve(info.hdr) if info.hdr else None)


def plane_views(picture: av.VideoFrame, colour: ColourMatrix) -> YuvImage:
    """Return the planes of a frame over its own memory, without a copy; writing to them writes to the frame."""
    y, u, v, *_ = sample_views(picture)
    return YuvImage((y, u, v), SUBSAMPLING_XY[picture.format.name], colour, bits_of(picture.format.name))
