"""What a lip model hears at a frame: when somebody speaks, and the window of speech that belongs there, whatever the model's front end."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from fractions import Fraction
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from orchestrator.errors import InvalidOption
from orchestrator.inference.lip_model import LipModel
from orchestrator.inference.separator import VoiceSeparator
from orchestrator.inference.voice import VoiceActivity
from orchestrator.media.audio import Speech, mel_blocks, read_speech, speech_samples
from orchestrator.media.track_file import store_track
from orchestrator.pipeline.options import USUAL_TEMPERATURE
from orchestrator.pipeline.watch import Watch
from preprocess.mel import COLUMNS_PER_S, MIN_DB, MelWindows, clipped, loud_gain_db, with_gain, with_level, with_temperature
from preprocess.speech_features import SAMPLE_RATE_HZ, feature_window
from preprocess.voice import Spans, speech_gain, speech_spans

Windows = Callable[[Fraction], NDArray[np.float32]]
"""From a time on the track, s, to what the lip model hears there."""

VOICE_LEVEL_DB = -30.0
"""Level loud sound is brought to before voice activity is looked for, dB of the mel features: a whisper is speech too."""


def heard_speech(speech: Speech, separator: VoiceSeparator | None, file: Path, watch: Watch) -> Speech:
    """Return a track as the models hear it: the track itself, or with a separator its voice alone, the same in time.

    Args:
        speech: the track; what sounds in the result stays this one.
        separator: takes the voice out of it.
        file: where the voice is kept; what is there already is taken.
        watch: ends the wait for the model.

    Raises:
        UnreadableMedia: the track cannot be read again.
        InferenceError: Triton failed.
        StorageError: the voice cannot be kept.
        RenderError: the watch says that the render must not go on.
    """
    if separator is None:
        return speech
    if not file.exists():
        pieces = (samples[0] for samples in speech_samples(speech.info, "mono", separator.sample_rate_hz))
        store_track(file, separator.separate(pieces, watch.result), separator.sample_rate_hz)
    return read_speech(file, watch.tick)


def find_speech(speech: Speech, voice_activity: VoiceActivity, watch: Watch) -> Spans:
    """Return when somebody speaks on a track, which is read once more for that.

    Raises:
        UnreadableMedia: the track cannot be read again.
        InferenceError: Triton failed.
        RenderError: the watch says that the render must not go on.
    """
    gain = np.float32(10.0 ** (loud_gain_db(_sounding(speech.levels_db), VOICE_LEVEL_DB) / 20.0))
    pieces = (samples[0] * gain for samples in speech_samples(speech.info, "mono", voice_activity.sample_rate_hz))
    voice = voice_activity.listen(pieces, watch.result)
    return speech_spans(voice, voice_activity.chunk_samples / voice_activity.sample_rate_hz)


def _sounding(levels_db: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the levels of where there is any sound: between segments there is none, for most of the track maybe."""
    sounding = levels_db[levels_db > MIN_DB]
    return sounding if len(sounding) else levels_db


def check_temperature(lip_model: LipModel, temperature: float) -> None:
    """Check that a lip model can move its mouth by another amount than usual.

    Raises:
        InvalidOption: it is asked to, and reads features whose strength says nothing about the mouth.
    """
    if lip_model.encoder is not None and temperature != USUAL_TEMPERATURE:
        raise InvalidOption(
            f"The lip model on Triton hears speech through {lip_model.encoder.front_end} features, which do not tell how far the mouth moves; "
            "leave temperature out, or install a lip model that reads mel windows."
        )


@contextmanager
def speech_windows(speech: Speech, lip_model: LipModel, spans: Spans | None = None, temperature: float = USUAL_TEMPERATURE) -> Iterator[Windows]:
    """Give the windows of a track for a lip model, at times that never go back; the track is read once more for that.

    A model that reads encoded features has the whole track encoded on Triton first.

    Args:
        speech: the track.
        lip_model: who hears it.
        spans: when somebody speaks; elsewhere the model hears silence, whatever sounds there. None lets it hear everything.
        temperature: how far the mouth moves, 0 to 1; `check_temperature` says whether the model can be told.

    Raises:
        UnreadableMedia: the track cannot be read again.
        InferenceError: Triton failed to encode it.
    """
    encoder = lip_model.encoder
    if encoder is None:
        with closing(mel_blocks(speech.info)) as blocks:
            yield MelWindows(_heard_mel(blocks, speech.levels_db, lip_model.loud_level_db, spans, temperature), lip_model.window_start_s)
        return
    waveform = np.concatenate([samples[0] for samples in speech_samples(speech.info, "mono", SAMPLE_RATE_HZ)])
    if spans is not None:
        waveform *= speech_gain(spans, len(waveform), SAMPLE_RATE_HZ)
    features = encoder.encode(waveform)
    count = prod(lip_model.audio_dims) // encoder.feature_size
    yield lambda time: feature_window(features, time, lip_model.window_start_s, encoder.features_per_s, count)


def _heard_mel(
    blocks: Iterable[NDArray[np.float32]], levels_db: NDArray[np.float32], loud_level_db: float | None, spans: Spans | None, temperature: float
) -> Iterator[NDArray[np.float32]]:
    """Yield (80, n) features as the lip model hears them: silent where nobody speaks, speech at the level it wants, and as vivid as is asked for."""
    gain = None if spans is None else speech_gain(spans, len(levels_db), COLUMNS_PER_S)
    gain_db = None
    if loud_level_db is not None:
        is_spoken = None if gain is None or not (gain == 1).any() else gain == 1
        gain_db = loud_gain_db(_sounding(levels_db) if is_spoken is None else levels_db[is_spoken], loud_level_db)  # music between may be louder
    first = 0
    for block in blocks:
        mel = block if gain_db is None else with_level(block, gain_db)
        first, before = first + block.shape[1], first
        yield with_temperature(clipped(mel) if gain is None else with_gain(mel, gain[before:first]), temperature)
