"""A track cut into the windows that a model hears: of one length, at fixed places, overlapping."""

from collections.abc import Iterable, Iterator
from itertools import chain

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]


class Counted:
    """The pieces of a track, counted while they are read: its length is known when they are all read."""

    def __init__(self, pieces: Iterable[Samples]) -> None:
        self._pieces = pieces
        self.sample_count = 0
        """Samples read so far."""

    def __iter__(self) -> Iterator[Samples]:
        for piece in self._pieces:
            self.sample_count += len(piece)
            yield piece


def cut_windows(pieces: Iterable[Samples], size: int, overlap: int, before: int, behind: int = 0) -> Iterator[Samples]:
    """Yield (size,) windows of a track, however it is cut into pieces; little more than one window is held.

    Args:
        pieces: the track's samples, (n,) each.
        size: of a window.
        overlap: samples at the start of a window that the one before has, too.
        before: zeros before the track's first sample.
        behind: zeros behind its last one that have to be in a window, as the samples; more fill up the last window.
    """
    known = before  # samples at the front of what is held that a window has had already
    held = [np.zeros(before, np.float32)]
    held_count = before
    for piece in chain(pieces, [np.zeros(behind, np.float32)]):
        held.append(piece)
        held_count += len(piece)
        while held_count >= size:
            joined = np.concatenate(held)
            yield joined[:size]
            known = overlap
            held = [joined[size - overlap :]]
            held_count = len(held[0])
    if held_count > known:
        yield np.pad(np.concatenate(held), (0, size - held_count))
