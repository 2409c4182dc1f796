"""The output's sound: the speech, maybe with the source's own sound under it, encoded once from its first sample to its last."""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from fractions import Fraction
from math import ceil
from typing import Any

import av
import numpy as np
from av.audio.codeccontext import AudioCodecContext
from av.packet import Packet
from numpy.typing import NDArray

from orchestrator.media.audio import AudioInfo, silence, speech_samples
from orchestrator.media.formats import SOUNDS, Sound
from orchestrator.media.mix import MIX_RATE_HZ, Background, mixed, together

_PIECE_SAMPLES = 4096
"""Samples of a piece that is not compressed, so that pictures and sound stand close to each other in the file."""


class SpeechEncoder:
    """The speech, encoded once from its first sample to its last, handed out packet by packet.

    The packets depend on the speech alone: who reads them in one go and who begins again in the middle gets the same.
    """

    def __init__(
        self,
        speech: AudioInfo,
        tick: Callable[[], None] = lambda: None,
        duration_s: Fraction | None = None,
        sound: Sound = SOUNDS["aac"],
        background: Background | None = None,
        others: Sequence[AudioInfo] = (),
    ) -> None:
        """Begin.

        Args:
            speech: the track.
            tick: called after each piece of it.
            duration_s: length of the sound, which is cut, or followed by silence; None takes the track as it is.
            sound: how it is stored.
            background: what lies under the speech.
            others: tracks that sound together with the first one; the sound is as long as the longest.
        """
        self.sound = sound
        takes_rate = background is None and not others and (not sound.rates_hz or speech.sample_rate_hz in sound.rates_hz)
        self.rate_hz = speech.sample_rate_hz if takes_rate else MIX_RATE_HZ
        tracks = (speech, *others)
        if others and duration_s is None:
            duration_s = max(track.duration_s for track in tracks)
        channels = max(*(track.channel_count for track in tracks), 1 if background is None else background.channel_count)
        self.layout = "mono" if channels == 1 else "stereo"
        self._tick = tick
        context = AudioCodecContext.create(sound.name, "w")
        assert isinstance(context, AudioCodecContext)
        self._context = context
        self.set_up(context)
        context.sample_rate = self.rate_hz
        context.layout = self.layout
        context.time_base = Fraction(1, self.rate_hz)
        samples = together([_samples(track, self.layout, self.rate_hz, duration_s) for track in tracks])
        self._packets = self._encoded(samples if background is None else mixed(samples, background, self.layout))
        self._next: Packet[Any] | None = None

    def set_up(self, context: AudioCodecContext) -> None:
        """Say in which format and at what bit rate a context encodes."""
        context.format = self.sound.sample_format
        context.bit_rate = self.sound.bits_per_s_per_channel * (1 if self.layout == "mono" else 2)

    def close(self) -> None:
        """Close the track, if it has not been read to its end: an error's traceback would keep it open."""
        self._packets.close()

    def until(self, time_s: Fraction | None) -> "Iterator[Packet[Any]]":
        """Yield the packets that begin before a time, or all that are left, each once."""
        stop = None if time_s is None else ceil(time_s * self.rate_hz)
        while (packet := self._peek()) is not None:
            if stop is not None and (packet.pts or 0) >= stop:
                return
            self._next = None
            yield packet

    def _peek(self) -> "Packet[Any] | None":
        if self._next is None:
            self._next = next(self._packets, None)
        return self._next

    def _encoded(self, pieces: Iterable[NDArray[np.float32]]) -> "Generator[Packet[Any]]":
        position = 0
        converter = av.AudioResampler(format=self.sound.sample_format, layout=self.layout, rate=self.rate_hz)
        for piece in pieces:
            for start in range(0, piece.shape[1], _PIECE_SAMPLES):
                samples = np.ascontiguousarray(piece[:, start : start + _PIECE_SAMPLES])
                frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout=self.layout)
                frame.sample_rate, frame.time_base, frame.pts = self.rate_hz, Fraction(1, self.rate_hz), position
                position += samples.shape[1]
                for converted in converter.resample(frame):
                    yield from self._context.encode(converted)
            self._tick()
        yield from self._context.encode(None)


def _samples(speech: AudioInfo, layout: str, rate_hz: int, duration_s: Fraction | None) -> Iterator[NDArray[np.float32]]:
    """Yield a track's samples, (channels, n) float32; exactly as long as asked for."""
    channels, own = (1 if layout == "mono" else 2), "mono" if speech.channel_count == 1 else "stereo"
    left = None if duration_s is None else round(duration_s * rate_hz)
    for samples in speech_samples(speech, own, rate_hz):
        # One channel is the same on both sides; FFmpeg would turn it down by 3 dB.
        piece = samples if samples.shape[0] == channels else np.repeat(samples, channels, 0)
        yield piece[:, :left]
        if left is not None:
            left -= min(left, piece.shape[1])
            if not left:
                return
    yield from silence(channels, left or 0, rate_hz)
