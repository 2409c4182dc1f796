"""A track kept on disk while a render needs it."""

from collections.abc import Iterable
from fractions import Fraction
from itertools import chain
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from orchestrator.files import placed_when_complete
from orchestrator.media.container import translate_write_errors
from preprocess.mel import SAMPLE_RATE_HZ


def store_track(out: Path, pieces: Iterable[NDArray[np.float32]], sample_rate_hz: int) -> None:
    """Write a mono track as 16 kHz float WAV, which is what features are made of.

    Args:
        out: file to write; it is there when it is complete.
        pieces: samples at `sample_rate_hz`, (n,) each.
        sample_rate_hz: theirs.

    Raises:
        StorageError: it cannot be written.
    """
    resampler = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE_HZ)
    with placed_when_complete(out) as partial, translate_write_errors(), av.open(str(partial), "w", format="wav") as container:
        stream = container.add_stream("pcm_f32le", rate=SAMPLE_RATE_HZ, layout="mono")
        position = 0
        for piece in chain(pieces, [None]):
            frame = None
            if piece is not None:
                frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(piece)[None], format="fltp", layout="mono")
                frame.sample_rate, frame.time_base, frame.pts = sample_rate_hz, Fraction(1, sample_rate_hz), position
                position += len(piece)
            for resampled in resampler.resample(frame):
                container.mux(stream.encode(resampled))
        container.mux(stream.encode(None))
