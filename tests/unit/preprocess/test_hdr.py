"""Curves between HDR signals and SDR ones."""

from typing import Literal

import numpy as np
import pytest

from preprocess.hdr import sdr_curve

Transfer = Literal["pq", "hlg"]


@pytest.mark.parametrize(
    ("transfer", "white", "skin", "black"),
    [
        ("pq", 0.581, 0.42, 0.0),  # ITU-R BT.2408: 203 nits, and about 50
        ("hlg", 0.75, 0.55, 0.0),
    ],
)
def test_white_is_bright_and_skin_in_the_middle(transfer: Transfer, white: float, skin: float, black: float) -> None:
    rgb = np.array([white, skin, black], np.float32) * 255
    found = sdr_curve(transfer).to_sdr(rgb).tolist()
    assert 235 <= found[0] <= 250 and 110 <= found[1] <= 190 and found[2] == 0


@pytest.mark.parametrize("transfer", ["pq", "hlg"])
def test_signal_comes_back_from_sdr(transfer: Transfer) -> None:
    curve = sdr_curve(transfer)
    assert (np.diff(curve.sdr) >= 0).all()
    signal = np.linspace(40, 160, 200, dtype=np.float32)
    assert np.abs(curve.from_sdr(curve.to_sdr(signal)) - signal).max() < 1.5, "a step of 8-bit SDR"
    assert curve.from_sdr(np.array([30.5, 31.5], np.float32))[1] > curve.from_sdr(np.array([30.5], np.float32))[0]
