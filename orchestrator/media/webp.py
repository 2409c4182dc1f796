"""Animated WebP (RFC 9649), which FFmpeg does not decode: Pillow does, and hands FFmpeg raw pictures, one at a time as they are asked for."""

from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream
from PIL import Image

from orchestrator.errors import LimitExceeded, UnreadableMedia
from orchestrator.media.bounds import check_size

MAX_BYTES = 256 * 1024 * 1024
"""Largest animation accepted: libwebp wants all of a file in memory."""

SHORTEST_MS, USUAL_MS = 11, 100
"""A frame meant to be shown for less than the one is shown for the other, ms; browsers do so, and FFmpeg with GIF."""


@dataclass(frozen=True, slots=True)
class Animation:
    """An animated WebP, by its chunks."""

    path: Path
    size_wh: tuple[int, int]
    durations_ms: tuple[int, ...]
    """How long each frame is shown, ms."""

    @property
    def duration_s(self) -> Fraction:
        """How long all of them are shown, s."""
        return Fraction(sum(self.durations_ms), 1000)

    @staticmethod
    def of(path: Path) -> "Animation | None":
        """Read a file's chunks; None where it is no animated WebP.

        Raises:
            LimitExceeded: it is too large, be it to look for its chunks: a file of empty ones would take minutes.
        """
        with path.open("rb") as file:
            head = file.read(30)
            if len(head) < 30 or head[:4] != b"RIFF" or head[8:16] != b"WEBPVP8X" or not head[20] & 0x02:
                return None
            if path.stat().st_size > MAX_BYTES:
                raise LimitExceeded(f"{path.name} is an animated WebP of more than {MAX_BYTES >> 20} MiB; convert it to MP4.")
            durations: list[int] = []
            while len(chunk := file.read(24)) >= 8:
                if chunk[:4] == b"ANMF" and len(chunk) == 24:
                    duration_ms = int.from_bytes(chunk[20:23], "little")
                    durations.append(duration_ms if duration_ms >= SHORTEST_MS else USUAL_MS)
                length = int.from_bytes(chunk[4:8], "little")
                file.seek(8 + length + length % 2 - len(chunk), 1)
        size_wh = (int.from_bytes(head[24:27], "little") + 1, int.from_bytes(head[27:30], "little") + 1)
        return Animation(path, size_wh, tuple(durations))

    @contextmanager
    def open(self) -> Iterator[InputContainer]:
        """Open the animation for reading, forwards only.

        Raises:
            LimitExceeded: its pictures are too large.
            UnreadableMedia: it is truncated or damaged; also inside the `with` block.
        """
        check_size(self.path, *self.size_wh)
        if not self.durations_ms:
            raise self._damaged(0)
        with closing(_Pieces(self._muxed())) as pieces, av.open(pieces, "r", format="matroska") as container:
            yield container

    def _muxed(self) -> Generator[bytes]:
        """Yield the pieces of a Matroska file with the raw pictures."""
        sink = _Sink()
        with av.open(sink, "w", format="matroska") as muxer:
            stream = muxer.add_stream("rawvideo", rate=len(self.durations_ms) / self.duration_s)
            assert isinstance(stream, VideoStream)
            stream.width, stream.height = self.size_wh
            stream.pix_fmt = "rgba"  # also where all is opaque: Matroska has no raw pictures without alpha
            minutes, ms = divmod(sum(self.durations_ms), 60_000)
            stream.metadata["DURATION"] = f"{minutes // 60:02}:{minutes % 60:02}:{ms / 1000:06.3f}"
            pts = 0
            for duration_ms, samples in zip(self.durations_ms, self._pictures(), strict=True):
                packet = Packet(samples)
                packet.stream, packet.time_base, packet.is_keyframe = stream, Fraction(1, 1000), True
                packet.pts, packet.dts, packet.duration = pts, pts, duration_ms
                muxer.mux(packet)
                yield sink.taken()
                pts += duration_ms
        yield sink.taken()

    def _pictures(self) -> Iterator[bytes]:
        """Yield the samples of each frame as it is shown, over those before it."""
        number = 0
        try:
            with Image.open(self.path, formats=("WEBP",)) as image:
                for number in range(len(self.durations_ms)):
                    image.seek(number)
                    yield image.convert("RGBA").tobytes()
        except (OSError, EOFError, ValueError, SyntaxError) as exc:
            raise self._damaged(number) from exc

    def _damaged(self, number: int) -> UnreadableMedia:
        return UnreadableMedia(
            f"{self.path.name} is truncated or damaged: frame {number + 1} of {len(self.durations_ms)} does not decode; copy or export it again."
        )


class _Sink:
    """Takes what a muxer writes."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def write(self, data: bytes) -> int:
        self._pieces.append(bytes(data))
        return len(data)

    def taken(self) -> bytes:
        data = b"".join(self._pieces)
        self._pieces.clear()
        return data


class _Pieces:
    """A file that is made as it is read."""

    def __init__(self, pieces: Generator[bytes]) -> None:
        self._pieces = pieces
        self._left = memoryview(b"")

    def read(self, length: int) -> bytes:
        while not self._left:
            piece = next(self._pieces, None)
            if piece is None:
                return b""
            self._left = memoryview(piece)
        data, self._left = self._left[:length], self._left[length:]
        return bytes(data)

    def close(self) -> None:
        self._pieces.close()
