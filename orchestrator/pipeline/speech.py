"""The window of speech that belongs to a frame, whatever front end the lip model has."""

from collections.abc import Callable
from fractions import Fraction
from math import prod

import numpy as np
from numpy.typing import NDArray

from orchestrator.inference.faces import LipModel
from orchestrator.media.audio import Speech, speech_samples
from preprocess.mel import mel_window, with_loud_level
from preprocess.speech_features import SAMPLE_RATE_HZ, feature_window

Windows = Callable[[Fraction], NDArray[np.float32]]
"""From a time on the track, s, to what the lip model hears there."""


def speech_windows(speech: Speech, lip_model: LipModel) -> Windows:
    """Return the windows of a track for a lip model.

    A model that reads encoded features has the whole track encoded on Triton first; the track is read once more for that.

    Raises:
        UnreadableMedia: the track cannot be read again.
        InferenceError: Triton failed to encode it.
    """
    encoder = lip_model.encoder
    if encoder is None:
        mel = speech.mel if lip_model.loud_level_db is None else with_loud_level(speech.mel, lip_model.loud_level_db)
        return lambda time: mel_window(mel, time, lip_model.window_start_s)
    waveform = np.concatenate([samples[0] for samples in speech_samples(speech.info, "mono", SAMPLE_RATE_HZ)])
    features = encoder.encode(waveform)
    count = prod(lip_model.audio_dims) // encoder.feature_size
    return lambda time: feature_window(features, time, lip_model.window_start_s, encoder.features_per_s, count)
