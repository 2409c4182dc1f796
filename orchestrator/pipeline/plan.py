"""A render's inputs, read and checked before anything expensive happens."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from orchestrator.errors import InvalidOption, LimitExceeded, StorageError
from orchestrator.media.audio import Speech, put_together, read_speech
from orchestrator.media.encoding import Encoding
from orchestrator.media.formats import CONTAINERS, ContainerName, container_of
from orchestrator.media.limits import UNLIMITED, Lengths, MediaLimits, too_many_frames
from orchestrator.media.mix import channels_of_source
from orchestrator.media.output import Output, choose_output
from orchestrator.media.probe import VideoInfo, bits_of, probe_video
from orchestrator.pipeline.options import RenderOptions
from orchestrator.pipeline.passages import Segments, check_segments, placed, said_in, stretches_of
from orchestrator.pipeline.progress import OnProgress, StageClock
from orchestrator.pipeline.recognise import read_reference
from orchestrator.pipeline.speakers import SpeakerAudio, Voice, check_speaker_image, check_speakers, speaker_choice, voices_of
from orchestrator.pipeline.timeline import frame_order, speech_frame_count, total_s
from orchestrator.pipeline.watch import Watch
from orchestrator.settings import DecoderChoice


@dataclass(frozen=True, slots=True)
class RenderPlan:
    """A render whose inputs have been read and found good; nothing expensive has happened yet."""

    info: VideoInfo
    voices: tuple[Voice, ...]
    """Who speaks, and what; the output's sound is all of them together."""
    out: Path
    options: RenderOptions
    output: Output
    limits: MediaLimits
    read_s: float
    """Time it took to read the inputs, s."""
    portrait: NDArray[np.uint8] | None = None
    """(h, w, 3) RGB, a picture of the speaker; None where the options choose him."""
    said_s: tuple[Fraction, ...] = ()
    """By segment, how long what is to be said there is, s."""

    @property
    def speech_s(self) -> Fraction:
        """Length of the speech, s; of several, the longest."""
        return max(voice.speech.info.duration_s for voice in self.voices)

    @property
    def expected_frame_count(self) -> int:
        """See `expected_frame_count`; exact for modes in which the output lasts as long as the speech at constant rate."""
        lengths = Lengths(self.info.expected_frame_count / self.info.frame_rate, self.speech_s, self.info.frame_rate)
        return expected_frame_count(self.options, lengths, self.said_s)


def expected_frame_count(options: RenderOptions, lengths: Lengths, said_s: Sequence[Fraction] = ()) -> int:
    """Return how many frames an output has, as far as headers tell; `said_s` is how long what is said in each segment is, where that is known."""
    rate = expected_rate(options, lengths.frame_rate)
    if options.segments is not None and lengths.video_s:
        said_s = said_s or [Fraction(segment.audio_end or lengths.speech_s) - Fraction(segment.audio_start) for segment in options.segments]
        return speech_frame_count(total_s(stretches_of(options.segments, said_s, lengths.video_s)), rate)
    video, speech = round(lengths.video_s * rate), speech_frame_count(lengths.speech_s, rate)
    return len(frame_order(options.mode, video or speech, speech))


def expected_rate(options: RenderOptions, source_rate: Fraction) -> Fraction:
    """Return the output's frame rate as far as that of the source by its header tells, Hz."""
    return options.rate if isinstance(options.rate, Fraction) else source_rate


def plan_render(
    video: Path,
    audio: Path,
    out: Path,
    options: RenderOptions | None = None,
    on_progress: OnProgress | None = None,
    watch: Watch | None = None,
    limits: MediaLimits = UNLIMITED,
    others: Sequence[SpeakerAudio] = (),
    speaker_image: Path | None = None,
    encoder_threads: int = 0,
    decoder: DecoderChoice = "software",
) -> RenderPlan:
    """Read and check the inputs of a render. Needs no Triton.

    Args:
        video: a video of a person, or a still image.
        audio: speech; a sound file, or a video of which the sound is taken.
        out: file to write; the end of its name says the container where the options do not.
        options: how to render.
        on_progress: see `OnProgress`.
        watch: ends the reading when it is told to stop.
        limits: how long and large the inputs and the output may be, by what is in them and not by their headers.
        others: more speakers, each with a track of his own; then the options, too, choose the first one by a point.
        speaker_image: a picture of the one speaker, in place of the options' choice.
        encoder_threads: see `Encoding.thread_count`.
        decoder: see `VideoInfo.decoder`.

    Raises:
        InputError: a file is missing, not media, damaged, empty or too large.
        InvalidOption: the output is one of the inputs or ends in no container's suffix, options do not go together, or a speaker's point is not in
            the picture.
        StorageError: the output's folder cannot be written.
    """
    options = options or RenderOptions()
    options.check()
    voice_of = check_voices(options, [other.speaker for other in others])
    if speaker_image is not None:
        check_speaker_image(options.speaker, options.speaker_boxes, len(others))
    encoding = replace(options.encoding(_container_of(out, options)), thread_count=encoder_threads)
    _check_place(out, [video, audio, *(other.audio for other in others), *([speaker_image] if speaker_image else [])])
    clock = StageClock("read", 0, on_progress)
    info = probe_video(video)
    if info.is_still and options.sync_mode == "cut_off":
        options = options.model_copy(update={"sync_mode": "bounce"})  # a picture lasts as long as the speech: it is never the shorter one
    info, output = _fit(options, encoding, info)
    info = replace(info, decoder=decoder)
    if options.background_audio is not None:
        channels_of_source(video)
    speakers = [options.speaker, *(other.speaker for other in others)]
    choices = [speaker_choice(speakers[voice_of.index(voice)], None if voice else options.speaker_boxes, info) for voice in range(max(voice_of) + 1)]
    tick = (watch or Watch()).tick
    tracks = [
        read_speech(path, tick, limits.max_duration_s, options.audio_offset_s - _until_pictures_s(path, info))
        for path in (audio, *(other.audio for other in others))
    ]
    speeches, said_s = _speech_in_segments(options.segments, tracks, voice_of, info, limits, tick) if options.segments is not None else (tracks, ())
    speech_frames = speech_frame_count(max(speech.info.duration_s for speech in speeches), expected_rate(options, info.frame_rate))
    if speech_frames > limits.max_frames:
        raise too_many_frames(speech_frames, limits)
    voices = tuple(Voice(choice, speech) for choice, speech in zip(choices, speeches, strict=True))
    portrait = None if speaker_image is None else read_reference(speaker_image)
    return RenderPlan(info, voices, out, options, output, limits, clock.elapsed_s, portrait, said_s)


def _container_of(out: Path, options: RenderOptions) -> ContainerName | None:
    """Return the container that an output's name asks for, None for none; where the options have one, any name will do."""
    container = container_of(out)
    if out.suffix and container is None and options.container is None:
        suffixes = ", ".join(suffix for row in CONTAINERS.values() for suffix in row.suffixes)
        raise InvalidOption(f"No result is written as {out.suffix}; let the output's name end in one of {suffixes}, or give a container.")
    return container


def _check_place(out: Path, inputs: Sequence[Path]) -> None:
    """Check that the output can be written, and over none of the inputs."""
    if out.resolve() in [path.resolve() for path in inputs]:
        raise InvalidOption(f"The output {out} is also an input; choose another output.")
    if out.is_dir():
        raise StorageError(f"Cannot write {out}, which is a folder; name a file in it or choose another output.")
    if not os.access(out.parent, os.W_OK | os.X_OK):
        raise StorageError(f"Cannot write {out}; create the folder {out.parent} or choose another output.")


def _fit(options: RenderOptions, encoding: Encoding, info: VideoInfo) -> tuple[VideoInfo, Output]:
    """Return the source as it is to be decoded, and an output that fits it: SDR or HDR, with alpha or without."""
    if info.hdr and options.hdr == "sdr":
        info = info.as_sdr
    if options.codec is None and encoding.codec == "h264" and bits_of(info.working_pix_fmt) > 8 and not encoding.smart:
        encoding = replace(encoding, codec="hevc")  # which plays with 10 bits; H.264 hardly anywhere does
    output = choose_output(encoding, info)
    if info.hdr and bits_of(output.pix_fmt) == 8:
        info = info.as_sdr
        output = choose_output(encoding, info)
    return replace(info, keeps_alpha=output.keeps_alpha), output


def _speech_in_segments(
    segments: Segments, tracks: Sequence[Speech], voice_of: Sequence[int], info: VideoInfo, limits: MediaLimits, tick: Callable[[], None]
) -> tuple[list[Speech], tuple[Fraction, ...]]:
    """Put together what each voice says, each piece at its segment; return it with how long what is said in each segment is, s."""
    infos = [track.info for track in tracks]
    about_s = None if info.is_still else info.expected_frame_count / info.frame_rate or None
    said_s = tuple(said_in(segments, infos, about_s))
    passages = placed(segments, said_s, infos, voice_of, about_s)
    if (end_s := max(passage.end_s for own in passages for passage in own)) > limits.max_duration_s:
        raise LimitExceeded(f"A segment ends at {float(end_s):g} s; at most {limits.max_duration_s:.0f} s are accepted.")
    return [put_together(own, tick) for own in passages], said_s


def check_voices(options: RenderOptions, speakers: Sequence[str]) -> list[int]:
    """Check that it is plain who says what; return by track to which voice it belongs, numbered from 0.

    Args:
        options: of the render; they choose the first speaker.
        speakers: of each further track.

    Raises:
        InvalidOption: speakers cannot be told apart, or segments and tracks do not fit together.
    """
    if options.segments is None:
        check_speakers(options.speaker, speakers)
        return list(range(len(speakers) + 1))
    check_speakers(options.speaker, [speaker for speaker in speakers if speaker])
    voice_of = voices_of(options.speaker, speakers)
    check_segments(options.segments, voice_of)
    return voice_of


def _until_pictures_s(audio: Path, info: VideoInfo) -> Fraction:
    """Return how much of a track comes before the first picture, with which the output begins: none, unless it is the video's own, s."""
    return info.start_s if audio.resolve() == info.path.resolve() else Fraction(0)
