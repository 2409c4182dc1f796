"""How far the mouth of the installed lip model moves follows the temperature."""

from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np

from orchestrator.inference.client import TritonClient
from orchestrator.inference.golden import golden_crop
from orchestrator.inference.lip_model import LipModel
from orchestrator.media.audio import read_speech
from orchestrator.pipeline.speech import speech_windows


def test_mouth_moves_the_further_the_higher_the_temperature_and_rests_in_silence_at_any(client: TritonClient, speech: Path) -> None:
    model, track = LipModel(client), read_speech(speech)
    face = golden_crop(model.size_px, "lower_face")
    amounts, rests = [], []
    for temperature in (0.0, 0.25, 0.5, 0.75, 1.0):
        with speech_windows(track, model, None, temperature) as windows:
            heard = [windows(Fraction(1, 8) + Fraction(index, 4)) for index in range(3)] + [windows(Fraction(135, 100))]
        *spoken, rest = model.generate([face] * 4, heard).result(60).astype(int)
        amounts.append(float(np.mean([abs(mouth - rest).mean() for mouth in spoken])))
        rests.append(rest)
    assert amounts[0] > 0 and all(less < more for less, more in pairwise(amounts)), amounts
    assert all(np.array_equal(rest, rests[0]) for rest in rests)
