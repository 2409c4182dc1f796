"""Media made for tests with PyAV: clips whose pictures carry their own frame number, tones and clicks.

A picture is a barcode of its number (upper half, black and white, so that any codec, range and bit depth keeps it) over a gradient that
moves with the number (lower half, so that two pictures are never the same).
"""

import struct
import wave
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.video.frame import PictureType
from av.video.stream import VideoStream
from numpy.typing import NDArray

from orchestrator.media.encoders import open_encoder
from orchestrator.media.probe import ColourTags, VideoInfo
from preprocess.mel import MelStream, clipped
from preprocess.orientation import UPRIGHT, Orientation

NUMBER_BITS = 6
"""Bits of the barcode: frame numbers 0..63."""

LOSSLESS_X264 = {"preset": "ultrafast", "qp": "0"}

PORTRAIT_PHONE_MATRIX = (0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)
"""Display matrix of a phone held upright (ISO 14496-12 8.5.2, as phones write it): the coded picture's top left is shown at the top right."""

FRONT_CAMERA_MATRIX = (0, 1 << 16, 0, 1 << 16, 0, 0, 0, 0, 1 << 30)
"""That of a front camera that is to be seen as in a mirror, held upright: the coded picture's rows are shown as columns."""

_SUBSAMPLING_SHIFT = {"yuv420p": (1, 1), "yuvj420p": (1, 1), "yuv422p": (1, 0), "yuv444p": (0, 0), "yuvj444p": (0, 0)}


@dataclass(frozen=True)
class Clip:
    """What a test clip is made of."""

    codec: str = "libx264"
    pix_fmt: str = "yuv420p"
    size_wh: tuple[int, int] = (96, 64)
    frame_rate: Fraction = Fraction(25)
    frame_count: int = 30
    options: Mapping[str, str] = field(default_factory=lambda: LOSSLESS_X264)
    container_options: Mapping[str, str] = field(default_factory=dict)
    gop: int = 12
    b_frames: int = 0
    ticks: Sequence[int] | None = None
    """Time stamps in 1/`frame_rate` s, for a variable frame rate; the frame numbers otherwise."""
    first_tick: int = 0
    key_at: Sequence[int] = ()
    """Frames forced to be key frames."""
    orientation: Orientation = UPRIGHT
    display_matrix: Sequence[int] | None = None
    colour: tuple[int, int, int, int] = (0, 2, 2, 2)
    """Range, primaries, transfer and matrix, FFmpeg's numbers."""
    sample_aspect_ratio: Fraction | None = None


def numbered_planes(number: int, size_wh: tuple[int, int], pix_fmt: str = "yuv420p") -> tuple[NDArray[np.uint8], ...]:
    """Return the Y, U and V planes, uint8, of the picture with a number."""
    width, height = size_wh
    bits = np.arange(width) * NUMBER_BITS // width
    luma = np.empty((height, width), np.uint8)
    luma[: height // 2] = np.where(number >> bits & 1, 200, 40)
    luma[height // 2 :] = 40 + (np.arange(width) + 3 * np.arange(height - height // 2)[:, None] + 5 * number) % 160
    shift_x, shift_y = _SUBSAMPLING_SHIFT[pix_fmt]
    chroma_hw = -(-height >> shift_y), -(-width >> shift_x)
    return luma, np.full(chroma_hw, 100 + number % 50, np.uint8), np.full(chroma_hw, 150 - number % 50, np.uint8)


def number_of(luma: NDArray[np.uint8]) -> int:
    """Read the number from a picture's (h, w) luma."""
    height, width = luma.shape
    centres = (np.arange(NUMBER_BITS) * 2 + 1) * width // (2 * NUMBER_BITS)
    bright = luma[height // 8 : height // 4, centres].mean(0) > 120
    return int((bright << np.arange(NUMBER_BITS)).sum())


def picture_of(planes: Sequence[NDArray[np.uint8]], pix_fmt: str = "yuv420p") -> av.VideoFrame:
    """Return a video frame that holds copies of three planes."""
    picture = av.VideoFrame(planes[0].shape[1], planes[0].shape[0], pix_fmt)
    for plane, samples in zip(picture.planes, planes, strict=True):
        padded = np.zeros((plane.height, plane.line_size), np.uint8)
        padded[:, : plane.width] = samples
        plane.update(padded.tobytes())
    return picture


def planes_of(picture: av.VideoFrame) -> tuple[NDArray[np.uint8], ...]:
    """Return copies of a picture's planes; of those with 10 bits the upper 8, all of which the tests' pictures are made of."""
    if "10" not in picture.format.name:
        return tuple(np.frombuffer(memoryview(p), np.uint8).reshape(p.height, p.line_size)[:, : p.width].copy() for p in picture.planes)
    wide = (np.frombuffer(memoryview(p), np.uint16).reshape(p.height, p.line_size // 2)[:, : p.width] for p in picture.planes)
    return tuple((samples >> 2).astype(np.uint8) for samples in wide)


def pictures_in(path: Path) -> NDArray[np.uint8]:
    """Return all frames of a file as I420 arrays, (N, h * 3 / 2, w)."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray() for frame in container.decode(video=0)])


def frames_of(path: Path) -> Iterator[av.VideoFrame]:
    """Yield the frames of a file."""
    with av.open(str(path)) as container:
        yield from container.decode(video=0)


def decoded(path: Path) -> list[av.VideoFrame]:
    """Return the frames of a file."""
    return list(frames_of(path))


def decoded_sound(path: Path) -> tuple[NDArray[np.float32], Fraction]:
    """Return the first channel of a file's sound as a player hears it, and the time of its first sample."""
    with av.open(str(path)) as container:
        frames = list(container.decode(audio=0))
    first = frames[0]
    assert first.pts is not None and first.time_base is not None
    return np.concatenate([frame.to_ndarray()[0] for frame in frames]), first.pts * Fraction(first.time_base)


def boxes(path: Path) -> list[str]:
    """Return the names of an MP4's top-level boxes, in order."""
    data, position, names = path.read_bytes(), 0, []
    while position < len(data):
        size, name = struct.unpack(">I4s", data[position : position + 8])
        names.append(name.decode())
        position += size if size != 1 else struct.unpack(">Q", data[position + 8 : position + 16])[0]
    return names


def info_of(**changes: object) -> VideoInfo:
    """Return what the header of a small clip says, with some changes."""
    info = VideoInfo(
        path=Path("source.mp4"),
        size_wh=(96, 64),
        frame_rate=Fraction(25),
        time_base=Fraction(1, 12800),
        expected_frame_count=0,
        pix_fmt="yuv420p",
        codec="h264",
        colour=ColourTags(1, 1, 1, 1),
        sample_aspect_ratio=Fraction(1),
        is_still=False,
        container="mov,mp4,m4a,3gp,3g2,mj2",
        is_interlaced=False,
    )
    return replace(info, **changes)  # type: ignore[arg-type]


def write_video(
    path: Path,
    pictures: Iterable[av.VideoFrame | NDArray[np.uint8]],
    options: Mapping[str, str] = LOSSLESS_X264,
    *,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    set_up: Callable[[VideoStream], object] = lambda stream: None,
) -> Path:
    """Write pictures, arrays being (h, w, 3) RGB, at 25 a second, and return the path. Which were key frames before does not count.

    `set_up` says more of the stream before anything is encoded.
    """
    with av.open(str(path), "w") as container:
        stream: VideoStream | None = None
        for number, given in enumerate(pictures):
            picture = av.VideoFrame.from_ndarray(given, format="rgb24") if isinstance(given, np.ndarray) else given
            if stream is None:
                added = container.add_stream(codec, rate=25, options=dict(options))
                assert isinstance(added, VideoStream)
                stream = added
                stream.width, stream.height, stream.pix_fmt = picture.width, picture.height, pix_fmt
                set_up(stream)
            picture.pts, picture.time_base, picture.pict_type = number, Fraction(1, 25), PictureType.NONE
            container.mux(stream.encode(picture))
        assert stream is not None
        container.mux(stream.encode(None))
    return path


def in_colour(colour: tuple[int, int, int, int]) -> Callable[[VideoStream], None]:
    """Return what gives a stream its range, primaries, transfer and matrix, FFmpeg's numbers."""

    def set_up(stream: VideoStream) -> None:
        context = stream.codec_context
        context.color_range, context.color_primaries, context.color_trc, context.colorspace = colour

    return set_up


def numbered_picture(number: int, clip: Clip) -> av.VideoFrame:
    """Return the picture with a number in a clip's size and pixel format."""
    if clip.pix_fmt in _SUBSAMPLING_SHIFT:
        return picture_of(numbered_planes(number, clip.size_wh, clip.pix_fmt), clip.pix_fmt)
    # Other formats by way of FFmpeg: 10 bit keeps the subsampling, RGB is made from full chroma.
    near = {"yuv420p10le": "yuv420p", "yuv422p10le": "yuv422p"}.get(clip.pix_fmt, "yuv444p")
    return picture_of(numbered_planes(number, clip.size_wh, near), near).reformat(format=clip.pix_fmt)


def make_clip(path: Path, clip: Clip | None = None, sound: "Sound | None" = None, sound_delay_s: Fraction = Fraction(0)) -> Path:
    """Write a clip, with sound where given, and return its path."""
    clip = clip or Clip()
    with av.open(str(path), "w", options=dict(clip.container_options)) as container:
        video = _video_stream(container, clip)
        audio = None if sound is None else _audio_stream(container, sound)
        for number, tick in enumerate(clip.ticks or range(clip.frame_count)):
            picture = numbered_picture(number, clip)
            picture.pts, picture.time_base = clip.first_tick + tick, 1 / clip.frame_rate
            picture.pict_type = PictureType.I if number in clip.key_at else PictureType.NONE
            container.mux(video.encode(picture))
        container.mux(video.encode(None))
        if audio is not None and sound is not None:
            first_sample = round((clip.first_tick / clip.frame_rate + sound_delay_s) * sound.sample_rate_hz)
            _mux_sound(container, audio, sound, first_sample)
    return path


def _video_stream(container: OutputContainer, clip: Clip) -> VideoStream:
    stream = container.add_stream(clip.codec, rate=clip.frame_rate, options=dict(clip.options))
    assert isinstance(stream, VideoStream)
    stream.width, stream.height = clip.size_wh
    stream.pix_fmt = clip.pix_fmt
    context = stream.codec_context
    context.time_base = 1 / clip.frame_rate
    context.gop_size = clip.gop
    context.max_b_frames = clip.b_frames
    context.thread_count = 1
    context.color_range, context.color_primaries, context.color_trc, context.colorspace = clip.colour
    if clip.sample_aspect_ratio:
        context.sample_aspect_ratio = clip.sample_aspect_ratio
    if clip.orientation != UPRIGHT:
        stream.set_display_rotation(clip.orientation.turn_deg, hflip=clip.orientation.is_mirrored)
    if clip.display_matrix is not None:
        stream.set_display_matrix(clip.display_matrix)
    open_encoder(context)
    return stream


@dataclass(frozen=True)
class Sound:
    """What a test sound is made of: a 440 Hz tone at half volume, or clicks in silence."""

    codec: str = "pcm_s16le"
    sample_rate_hz: int = 16_000
    layout: str = "mono"
    sample_format: str = "s16"
    duration_s: Fraction = Fraction(1)
    clicks_s: Sequence[Fraction] = ()
    """Where 2 ms of full volume begin; a tone if there are none."""

    @property
    def sample_count(self) -> int:
        return round(self.duration_s * self.sample_rate_hz)

    def samples(self) -> NDArray[np.float32]:
        """Return (n,) float32, one channel."""
        if not self.clicks_s:
            return np.asarray(0.5 * np.sin(2 * np.pi * 440 / self.sample_rate_hz * np.arange(self.sample_count)), np.float32)
        samples = np.zeros(self.sample_count, np.float32)
        for click_s in self.clicks_s:
            first = round(click_s * self.sample_rate_hz)
            samples[first : first + max(2, self.sample_rate_hz // 500)] = 0.9
        return samples


def make_sound(path: Path, sound: Sound | None = None) -> Path:
    """Write a sound file and return its path."""
    sound = sound or Sound()
    with av.open(str(path), "w") as container:
        _mux_sound(container, _audio_stream(container, sound), sound, 0)
    return path


def with_sound(path: Path, pictures: Path, sound: Sound) -> Path:
    """Write the pictures of a file, packet by packet, with a sound of their own, and return the path."""
    with av.open(str(pictures)) as source, av.open(str(path), "w") as container:
        video = container.add_stream_from_template(source.streams.video[0])
        audio = _audio_stream(container, sound)
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = video
                container.mux(packet)
        _mux_sound(container, audio, sound, 0)
    return path


def _audio_stream(container: OutputContainer, sound: Sound) -> AudioStream:
    stream = container.add_stream(sound.codec, rate=sound.sample_rate_hz, layout=sound.layout)
    assert isinstance(stream, AudioStream)
    stream.codec_context.format = av.AudioFormat(sound.sample_format)
    if sound.codec not in ("flac", "pcm_s16le"):
        stream.bit_rate = 128_000
    return stream


def _mux_sound(container: OutputContainer, stream: AudioStream, sound: Sound, first_sample: int) -> None:
    channel_count = av.AudioLayout(sound.layout).nb_channels
    samples = sound.samples()
    resampler = av.AudioResampler(format=sound.sample_format, layout=sound.layout, rate=sound.sample_rate_hz)
    for start in range(0, len(samples), 4096):
        piece = np.tile(samples[start : start + 4096], (channel_count, 1))
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(piece), format="fltp", layout=sound.layout)
        frame.sample_rate, frame.time_base, frame.pts = sound.sample_rate_hz, Fraction(1, sound.sample_rate_hz), first_sample + start
        for converted in resampler.resample(frame):
            container.mux(stream.encode(converted))
    container.mux(stream.encode(None))


def write_wav(path: Path, samples: NDArray[np.float32], sample_rate_hz: int) -> Path:
    """Write (n,) or (n, channels) samples, -1..1, as 16-bit PCM, without PyAV."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1 if samples.ndim == 1 else samples.shape[1])
        file.setsampwidth(2)
        file.setframerate(sample_rate_hz)
        file.writeframes((samples * 32767).astype("<i2").tobytes())
    return path


SPEECH_RATE_HZ = 16_000
"""Sample rate of `speech_like`."""


def speech_like(duration_s: float, silent_s: tuple[float, float] = (0.0, 0.0)) -> NDArray[np.float32]:
    """Return a voice that glides between vowels, four syllables a second, -1..1. Silero VAD takes it for speech."""
    time = np.arange(int(duration_s * SPEECH_RATE_HZ)) / SPEECH_RATE_HZ
    pitch_hz = 120 * (1 + 0.25 * np.sin(2 * np.pi * 0.9 * time))
    phase = 2 * np.pi * np.cumsum(pitch_hz) / SPEECH_RATE_HZ
    vowels_hz = np.array([(700, 1200, 2600), (300, 2200, 3000), (350, 800, 2400), (550, 1800, 2500)], np.float64)
    syllable = (4 * time).astype(int)
    glide = (0.5 - 0.5 * np.cos(np.pi * np.clip((4 * time % 1 - 0.5) * 2, 0, 1)))[:, None]
    formants_hz = vowels_hz[syllable % 4] * (1 - glide) + vowels_hz[(syllable + 1) % 4] * glide
    samples = np.zeros(len(time))
    for harmonic in range(1, 50):
        distance = (harmonic * pitch_hz[:, None] - formants_hz) / (60.0, 90.0, 120.0)
        strength = ((1.0, 0.5, 0.25) / (1 + distance**2)).sum(1)
        samples += strength * np.sin(harmonic * phase) * (harmonic * pitch_hz < 7600)
    loud = ~((time >= silent_s[0]) & (time < silent_s[1]))
    samples *= (0.5 - 0.5 * np.cos(2 * np.pi * 4 * time)) * loud
    return np.asarray(0.5 * samples / np.abs(samples).max(), np.float32)


def write_speech(path: Path, duration_s: float, silent_s: tuple[float, float] = (0.0, 0.0)) -> Path:
    """Write what `speech_like` returns as a sound file, and return its path."""
    return write_wav(path, speech_like(duration_s, silent_s), SPEECH_RATE_HZ)


def mel_of(waveform: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the (80, T) float32 features of a whole mono 16 kHz waveform, -4..4: its level as it is."""
    stream = MelStream()
    return clipped(np.concatenate([*stream.push(waveform), stream.finish()], axis=1))
