"""Audio in: a track's level, its mel features for the lip model, and its samples for the output's own audio stream: each reads it once more."""

import ctypes
import math
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from itertools import chain, groupby
from pathlib import Path

import av
import numpy as np
from av.audio.codeccontext import AudioCodecContext
from av.audio.frame import AudioFrame
from av.audio.layout import AudioLayout
from av.audio.stream import AudioStream
from av.container import InputContainer
from numpy.typing import NDArray

from orchestrator.errors import EmptyStream, InvalidOption, LimitExceeded, UnreadableMedia
from orchestrator.media.container import (
    MAY_JUMP,
    UNUSABLE,
    declares_its_length,
    format_of,
    has_pauses,
    open_media,
    packets_of,
    refuse_truncated_riff,
)
from orchestrator.media.streams import main_audio, picture_streams
from orchestrator.media.tags import language_of
from orchestrator.media.times import JUMP_AHEAD_S, NO_PAUSE_S
from preprocess.mel import SAMPLE_RATE_HZ, MelStream, levels_db

TRUNCATED_TOLERANCE_S = Fraction(1, 2)
"""How much shorter than declared a track may decode before it counts as truncated, s."""

LEAST_DELAY_S, LEAST_PAUSE_S = Fraction(1, 1000), Fraction(1, 10)
"""From how much on a late beginning, and a pause in the time stamps, is silence; less is jitter, s (the latter FFmpeg's min_hard_comp)."""

ABSURD_LEVEL = np.float32(1000)
"""Samples this loud (60 dB above the loudest there should be), and what is no number, are faults of the program that wrote them, and silenced."""

MOST_PLACED = 8
"""Channels without a layout up to which FFmpeg takes the usual one for so many. More than that are tracks of a mixer, and are added up."""

CUT_FADE_S = Fraction(1, 100)
"""Fade at either end of what is cut out of a track, or it would click, s."""

MAX_CHANNELS = 64
"""Most channels that FFmpeg's resampler takes."""

MIN_RATE_HZ, MAX_RATE_HZ = 1_000, 6_000_000
"""Sample rates accepted: real ones are 4 kHz to that of DSD1024. A frame of a lower one is minutes or hours long, gigabytes in the resampler; for a
higher one its filter is."""

STEREO_TO_MONO_GAIN = 0.5**0.5
"""FFmpeg adds the two channels at -3 dB each; this makes it their mean, as librosa (and so Wav2Lip's own script) has it."""


@dataclass(frozen=True, slots=True)
class AudioInfo:
    """The speech track."""

    path: Path
    sample_rate_hz: int
    channel_count: int
    """1 where tracks were added up."""
    codec: str
    duration_s: Fraction
    """Length by counted samples, the offset included, s."""
    offset_s: Fraction = Fraction(0)
    """Silence before its first sample, or where negative how much of its beginning is left out, s."""
    gain: float = 1.0
    """What keeps many channels mixed into two or one from clipping."""
    added_up_count: int = 0
    """How many tracks without a layout were added up; 0 where the channels have one."""
    language: str | None = None
    """As its file has it, see `Tags`."""
    damaged_packet_count: int = 0
    """Packets that could not be decoded; the sound goes on behind them."""
    passages: "tuple[Passage, ...]" = ()
    """What it is put together of, in order, with silence between them, see `put_together`; nothing where it is a file as it is."""


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of a track, put in its place on another clock: that of an output."""

    track: AudioInfo
    start_s: Fraction
    end_s: Fraction
    """From when to when it has its place, s."""
    from_s: Fraction
    """Where in the track it begins, s."""
    said_s: Fraction
    """How long it is, s, which is no longer than its place; silence follows."""
    cut_s: Fraction = Fraction(0)
    """How much more of it there would have been, s."""
    asked_s: Fraction = Fraction(0)
    """When in the source its place begins, s."""


@dataclass(frozen=True, slots=True)
class Speech:
    """A decoded speech track."""

    info: AudioInfo
    levels_db: NDArray[np.float32]
    """(T,) how loud the columns of its mel features are, 80 a second, see `mel_blocks`."""


def read_speech(path: Path, tick: Callable[[], None] = lambda: None, max_duration_s: float = math.inf, offset_s: Fraction = Fraction(0)) -> Speech:
    """Decode a track once, in pieces, and measure it.

    Args:
        path: a file with sound.
        tick: called after each piece; what it raises ends the decoding.
        max_duration_s: the most that is accepted.
        offset_s: silence before the track, or where negative how much of its beginning is left out.

    Raises:
        InvalidOption: the offset leaves nothing.
        MissingFile: there is no such file.
        UnreadableMedia: it is not media, or ends before its header says.
        MissingStream: it has no audio.
        EmptyStream: its audio has no sample.
        LimitExceeded: it turns out to be longer than `max_duration_s`, whatever its header says.
    """
    mel = MelStream()
    levels: list[NDArray[np.float32]] = []
    with open_media(path) as container:
        stream = _audio_stream(container, path)
        if container.format.name == "wav":
            refuse_truncated_riff(path)
        declared_s = Fraction(0)
        if stream.duration and stream.time_base and declares_its_length(container):
            declared_s = stream.duration * Fraction(stream.time_base)
        elif container.duration and len(container.streams) == 1 and declares_its_length(container):
            declared_s = Fraction(container.duration, av.time_base)  # Matroska has one length for all of its streams
        damaged = Counter[str]()
        pieces = shifted(_resampled(container, stream, "mono", SAMPLE_RATE_HZ, damaged), offset_s, 1, SAMPLE_RATE_HZ)
        for samples in pieces:
            levels.extend(levels_db(columns) for columns in mel.push(samples[0]))
            tick()
            if mel.sample_count > max_duration_s * SAMPLE_RATE_HZ:
                raise LimitExceeded(f"{path.name} is longer than {max_duration_s:.0f} s, the most that is accepted; cut it.")
        duration_s = Fraction(mel.sample_count, SAMPLE_RATE_HZ)
        if not duration_s and offset_s < 0:
            raise InvalidOption(f"audio_offset is {float(offset_s):g} s, which leaves nothing of {path.name}; leave out less of it.")
        if not duration_s or duration_s == max(0, offset_s):
            raise EmptyStream(f"{path.name} has an audio stream without a single sample; export the speech again.")
        heard_s = duration_s - Fraction(damaged["lost_ms"], 1000)
        if declared_s + offset_s - heard_s > max(TRUNCATED_TOLERANCE_S, declared_s / 50):
            raise UnreadableMedia(
                f"{path.name} is truncated: its header promises {float(declared_s):.2f} s of audio, {float(heard_s - offset_s):.2f} s are there; "
                "copy or export it again."
            )
        context, channels = stream.codec_context, _layout_of(stream.codec_context).nb_channels
        count = _heard_channel_count(context)
        added_up = channels if count < channels else 0
        gain = 1.0
        if channels > 2:
            mixed = read_samples(path, "mono" if added_up else "stereo", context.sample_rate)
            loudest = max(float(np.abs(samples).max(initial=0)) for samples in mixed)
            gain = 1 / max(1.0, loudest)
        language = language_of(stream.metadata)
        info = AudioInfo(path, context.sample_rate, count, context.name, duration_s, offset_s, gain, added_up, language, damaged["packets"])
    return Speech(info, np.concatenate([*levels, levels_db(mel.finish())]))


def put_together(passages: Sequence[Passage], tick: Callable[[], None] = lambda: None) -> Speech:
    """Make one track of pieces of others, at least one, that do not overlap; it ends with the last one's place.

    Args:
        passages: in order.
        tick: called after each block of features; what it raises ends the work.

    Raises:
        UnreadableMedia: a track cannot be read again.
    """
    tracks = [passage.track for passage in passages]
    info = AudioInfo(
        tracks[0].path,
        max(track.sample_rate_hz for track in tracks),
        max(track.channel_count for track in tracks),
        tracks[0].codec,
        passages[-1].end_s,
        added_up_count=max(track.added_up_count for track in tracks),
        damaged_packet_count=sum(track.damaged_packet_count for track in set(tracks)),
        passages=tuple(passages),
    )
    levels: list[NDArray[np.float32]] = []
    for block in mel_blocks(info):
        levels.append(levels_db(block))
        tick()
    return Speech(info, np.concatenate(levels))


def mel_blocks(speech: AudioInfo) -> Generator[NDArray[np.float32]]:
    """Read a track once more; yield its Wav2Lip mel features in blocks, (80, n) float32, 80 columns a second.

    Kept as a whole they would be 1 kB for every frame of the video.

    Raises:
        UnreadableMedia: FFmpeg fails on the file.
    """
    mel = MelStream()
    with closing(_heard(speech)) as pieces:
        for samples in pieces:
            yield from mel.push(samples[0])
    yield mel.finish()


def _heard(speech: AudioInfo) -> Generator[NDArray[np.float32]]:
    """Yield a track's samples, (1, n) float32 at 16 kHz, as `read_speech` measures them."""
    if speech.passages:
        yield from speech_samples(speech, "mono", SAMPLE_RATE_HZ)
        return
    with closing(read_samples(speech.path, "mono", SAMPLE_RATE_HZ)) as pieces:
        yield from shifted(pieces, speech.offset_s, 1, SAMPLE_RATE_HZ)


def channel_count(path: Path) -> int:
    """Return how many channels a track has, 1 where they are added up.

    Raises:
        UnreadableMedia: the file is not media.
        MissingStream: it has no audio.
    """
    with open_media(path) as container:
        return _heard_channel_count(_audio_stream(container, path).codec_context)


def read_samples(path: Path, layout: str, sample_rate_hz: int) -> Generator[NDArray[np.float32]]:
    """Yield a track's samples in pieces of shape (channels, n), float32, -1..1, starting at its first sample.

    Raises:
        UnreadableMedia: FFmpeg fails on the file.
    """
    with open_media(path) as container:
        yield from _resampled(container, _audio_stream(container, path), layout, sample_rate_hz, Counter())


def speech_samples(speech: AudioInfo, layout: str, sample_rate_hz: int) -> Generator[NDArray[np.float32]]:
    """Yield a speech's samples in pieces of shape (channels, n), float32, -1..1, from time 0 on: with its offset, and without clipping.

    Raises:
        UnreadableMedia: FFmpeg fails on the file.
    """
    channel_count = 1 if layout == "mono" else 2
    if speech.passages:
        yield from _joined(speech.passages, layout, sample_rate_hz)
        return
    for samples in shifted(read_samples(speech.path, layout, sample_rate_hz), speech.offset_s, channel_count, sample_rate_hz):
        yield samples if speech.gain == 1 else samples * np.float32(speech.gain)


def _joined(passages: Sequence[Passage], layout: str, sample_rate_hz: int) -> Iterator[NDArray[np.float32]]:
    """Yield passages as one track, (channels, n) float32, with silence between them."""
    channel_count, position = (1 if layout == "mono" else 2), 0
    with ExitStack() as opened:
        readers = {}
        for track in {passage.track for passage in passages}:
            # FFmpeg would turn one channel down by 3 dB to make two of it.
            begin = partial(speech_samples, track, "mono" if track.channel_count == 1 else layout, sample_rate_hz)
            readers[track] = opened.enter_context(closing(SoundReader(begin)))
        for passage in passages:
            start, end = round(passage.start_s * sample_rate_hz), round(passage.end_s * sample_rate_hz)
            yield from silence(channel_count, start - position, sample_rate_hz)
            position = start
            for samples in _said(passage, readers[passage.track], sample_rate_hz, end - start):
                yield np.broadcast_to(samples, (channel_count, samples.shape[1]))
                position += samples.shape[1]
            yield from silence(channel_count, end - position, sample_rate_hz)
            position = end


def _said(passage: Passage, track: "SoundReader", sample_rate_hz: int, most: int) -> Iterator[NDArray[np.float32]]:
    """Yield a passage's samples, no more than its place has, faded where it was cut out of its track."""
    first, count, position = round(passage.from_s * sample_rate_hz), min(round(passage.said_s * sample_rate_hz), most), 0
    fade = min(round(CUT_FADE_S * sample_rate_hz), count // 2)
    for samples in track.read(first, count):
        places = np.arange(position, position + samples.shape[1])  # whole numbers: there may be more than float32 tells apart
        gain = np.ones(samples.shape[1], np.float32)
        if passage.from_s:
            gain = np.minimum(gain, ((places + 1) / (fade + 1)).astype(np.float32))
        if passage.from_s + passage.said_s < passage.track.duration_s:
            gain = np.minimum(gain, ((count - places) / (fade + 1)).astype(np.float32))
        yield samples * gain
        position += samples.shape[1]


class SoundReader:
    """Reads stretches of a sound. It begins again only where one does not lie behind the one before: there may be hundreds in a long track."""

    def __init__(self, begin: Callable[[], Generator[NDArray[np.float32]]]) -> None:
        """Open the sound: `begin` gives its pieces, (channels, n), from its first sample on."""
        self._begin = begin
        self._pieces = begin()
        self._piece: NDArray[np.float32] | None = None
        self._position = 0

    def read(self, first: int, count: int) -> Iterator[NDArray[np.float32]]:
        """Yield `count` samples from the `first` on, (channels, n), or as many as there are."""
        if first < self._position:
            self.close()
            self._pieces, self._piece, self._position = self._begin(), None, 0
        while count and (piece := self._piece if self._piece is not None else next(self._pieces, None)) is not None:
            skipped = min(first - self._position, piece.shape[1])
            taken = piece[:, skipped : skipped + count]
            self._position += skipped + taken.shape[1]
            self._piece = piece[:, skipped + taken.shape[1] :] if skipped + taken.shape[1] < piece.shape[1] else None
            first, count = first + taken.shape[1], count - taken.shape[1]
            if taken.shape[1]:
                yield taken

    def close(self) -> None:
        """Close the track's file."""
        self._pieces.close()


def shifted(pieces: Iterator[NDArray[np.float32]], offset_s: Fraction, channel_count: int, sample_rate_hz: int) -> Generator[NDArray[np.float32]]:
    """Yield samples with silence before them or without their beginning."""
    offset = round(offset_s * sample_rate_hz)
    yield from silence(channel_count, offset, sample_rate_hz)
    left_out = max(0, -offset)
    for samples in pieces:
        skipped = min(left_out, samples.shape[1])
        left_out -= skipped
        if skipped < samples.shape[1]:
            yield samples[:, skipped:]


def silence(channel_count: int, sample_count: int, sample_rate_hz: int) -> Iterator[NDArray[np.float32]]:
    """Yield so many samples of silence, (channels, n) float32, at most a second at once; nothing for a count below 1."""
    for start in range(0, sample_count, sample_rate_hz):
        yield np.zeros((channel_count, min(sample_rate_hz, sample_count - start)), np.float32)


def _audio_stream(container: InputContainer, path: Path) -> AudioStream:
    stream = main_audio(container, path)
    if stream.codec_context is None:
        raise UnreadableMedia(f"{path.name} has sound of a kind that FFmpeg does not decode; convert it to WAV.")
    if (count := _layout_of(stream.codec_context).nb_channels) > MAX_CHANNELS:
        raise UnreadableMedia(f"{path.name} has {count} channels of sound; at most {MAX_CHANNELS} can be read, so mix them down.")
    return stream


def _resampled(
    container: InputContainer, stream: AudioStream, layout: str, sample_rate_hz: int, damaged: "Counter[str]"
) -> Iterator[NDArray[np.float32]]:
    pauses = _pauses(container, _decoded(container, stream, damaged), damaged)
    # Joined MP3 or AAC files may change rate and channels on the way: each part goes through a resampler of its own.
    for (channel_count, _, _, rate_hz), frames in groupby(pauses, lambda found: _sample_kind(found[1])):
        if not MIN_RATE_HZ <= rate_hz <= MAX_RATE_HZ:
            name = Path(container.name.removeprefix("file:")).name
            raise UnreadableMedia(f"{name} has sound of {rate_hz} samples a second, expected {MIN_RATE_HZ} to {MAX_RATE_HZ}; export it again.")
        resampler = av.AudioResampler(format="fltp", layout=layout, rate=sample_rate_hz)
        gain = np.float32(STEREO_TO_MONO_GAIN if channel_count == 2 and layout == "mono" else 1.0)
        for pause_s, frame in chain(frames, [(Fraction(0), None)]):
            yield from silence(1 if layout == "mono" else 2, round(pause_s * sample_rate_hz), sample_rate_hz)
            if frame is not None:
                frame.pts = None  # the resampler would make what jitters follow its stamps
            for resampled in resampler.resample(frame):
                samples = np.asarray(resampled.to_ndarray(), np.float32)
                is_sound = np.abs(samples) < ABSURD_LEVEL
                yield np.where(is_sound, samples, np.float32(0)) * gain


def _decoded(container: InputContainer, stream: AudioStream, damaged: "Counter[str]") -> Iterator[av.AudioFrame]:
    adder = _Adder()
    for packet in packets_of(container, stream):
        try:
            frames = packet.decode()
        except UNUSABLE:
            damaged["packets"] += 1
            continue
        for frame in frames:
            yield adder.added_up(frame) if _are_tracks(frame) else frame


def _heard_channel_count(context: AudioCodecContext) -> int:
    return 1 if _are_tracks(context) else _layout_of(context).nb_channels


class _Adder:
    """Adds up the tracks of frames that have no layout: FFmpeg mixes only what has one."""

    def __init__(self) -> None:
        self._converter: av.AudioResampler | None = None
        self._kind: tuple[int, str, str, int] | None = None

    def added_up(self, frame: AudioFrame) -> AudioFrame:
        """Return a frame's tracks in one channel: their sum, or of a sphere of sound (ambisonics) its first, which is the sum of all directions."""
        if self._converter is None or self._kind != _sample_kind(frame):
            # Packed, since PyAV cannot look at more than eight planes.
            self._converter = av.AudioResampler(format="flt", layout=None, rate=frame.sample_rate)
            self._kind = _sample_kind(frame)
        pts, time_base, frame.pts = frame.pts, frame.time_base, None
        [packed] = self._converter.resample(frame)
        layout = _layout_of(packed)
        tracks = packed.to_ndarray().reshape(-1, layout.nb_channels)
        heard = tracks[:, 0] if _is_sphere(layout) else tracks.sum(1)
        one = av.AudioFrame.from_ndarray(np.ascontiguousarray(heard[None]), format="fltp", layout="mono")
        one.sample_rate, one.pts, one.time_base = frame.sample_rate, pts, time_base
        return one


def _are_tracks(sound: AudioFrame | AudioCodecContext) -> bool:
    """Tell whether channels, or some of them, have no places: tracks of a mixer, or what stands for a whole sphere."""
    layout = _layout_of(sound)
    is_partly_placed = any(mark in layout.name for mark in ("(UN", "+UN"))  # unknown or unused
    has_number_alone = layout.nb_channels > MOST_PLACED and layout.name == f"{layout.nb_channels} channels"
    return has_number_alone or is_partly_placed or _is_sphere(layout)


def _is_sphere(layout: AudioLayout) -> bool:
    return layout.name.startswith("ambisonic")


def _layout_of(sound: AudioFrame | AudioCodecContext) -> AudioLayout:
    """Return how channels are laid out. No layout of a decoder or of its frames may be looked at in any other way.

    PyAV (since 17.1) frees the list of channels in an order of their own twice, as its layout and as its frame's or decoder's, which ends the
    process: such a layout is never freed here.
    """
    layout = sound.layout
    if " channels (" in layout.name:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(layout))
    return layout


def _sample_kind(frame: av.AudioFrame) -> tuple[int, str, str, int]:
    return frame.layout.nb_channels, frame.layout.name, frame.format.name, frame.sample_rate


def _pauses(container: InputContainer, frames: Iterator[AudioFrame], damaged: "Counter[str]") -> Iterator[tuple[Fraction, AudioFrame]]:
    """Yield frames, and the silence before each, s: for a track that starts later than its file, and where its time stamps leave something out.

    That is how recorders store a microphone that is off, and speech codecs a pause. Sound alone begins with its first sample, as FFmpeg's own program
    has it: WMA's decoder leaves out two frames and counts on. What falls to damaged packets is counted as `lost_ms`.
    """
    has_gaps, is_beside_pictures = has_pauses(container), bool(picture_streams(container))
    longest_s = JUMP_AHEAD_S if format_of(container) in MAY_JUMP else NO_PAUSE_S
    end_s: Fraction | None = None
    damaged_before = 0
    for frame in frames:
        pause_s = Fraction(0)
        if frame.pts is not None and frame.time_base is not None:
            start_s = frame.pts * Fraction(frame.time_base)
            since_s = start_s - (Fraction(container.start_time or 0, av.time_base) if end_s is None else end_s)
            if (is_beside_pictures and since_s > LEAST_DELAY_S) if end_s is None else (has_gaps and LEAST_PAUSE_S < since_s <= longest_s):
                pause_s = since_s
            end_s = start_s
        if damaged["packets"] > damaged_before:
            damaged["lost_ms"] += round(pause_s * 1000)
            damaged_before = damaged["packets"]
        if end_s is not None:
            end_s += Fraction(frame.samples, frame.sample_rate)
        yield pause_s, frame
