"""Several voices at once, and the source's own sound under them, from its start on; never louder than samples can be."""

import itertools
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from orchestrator.errors import MissingStream
from orchestrator.media.audio import SoundReader, channel_count, read_samples, shifted, silence

MIX_RATE_HZ = 48_000
"""Sample rate of an output with several sounds in it."""

CEILING = np.float32(10 ** (-0.3 / 20))
"""Loudest sample of a mix, -0.3 dB: what the encoder adds must not clip either."""

BLOCK_SAMPLES = MIX_RATE_HZ // 200
"""The limiter's step, 5 ms."""

FADE_SAMPLES = MIX_RATE_HZ // 100
"""Fade at both ends of the background where it begins again, 10 ms, or the seam would click."""


@dataclass(frozen=True, slots=True)
class Background:
    """The source's sound as it lies under the speech."""

    path: Path
    channel_count: int
    level_db: float | None
    """How loud it is under the speech, compared with what it is in the source; None where it is not heard there."""
    pieces: "tuple[SoundPiece, ...]"
    """What is heard of it, one behind the other."""
    repeats: bool
    """Whether they begin again then; if not, silence follows."""
    pictures_start_s: Fraction = Fraction(0)
    """How long after the file's own beginning its first picture is shown; the sound before that is left out, s."""
    under_s: tuple[tuple[Fraction, Fraction], ...] | None = None
    """From when to when it lies under speech, s; elsewhere it is as it is in the source. None: everywhere."""


@dataclass(frozen=True, slots=True)
class SoundPiece:
    """A piece of a sound, and how long it is given."""

    from_s: Fraction
    heard_s: Fraction
    """Where it begins, and how long it is, s; what is longer than `lasts_s` is cut."""
    lasts_s: Fraction
    """After how long the next one begins, s; behind what is shorter there is silence."""

    def leads_to(self, following: "SoundPiece") -> bool:
        """Tell whether another piece goes on without a break where this one ends."""
        return self.lasts_s == self.heard_s and following.from_s == self.from_s + self.heard_s


def channels_of_source(path: Path) -> int:
    """Return how many channels a source's own sound has.

    Raises:
        MissingStream: it has no sound.
    """
    try:
        return channel_count(path)
    except MissingStream as exc:
        raise MissingStream(f"{path.name} has no sound of its own to put under the speech; leave background_audio out.") from exc


def mixed(speech: Iterator[NDArray[np.float32]], background: Background, layout: str) -> Iterator[NDArray[np.float32]]:
    """Yield the speech with a background under it, (channels, n) float32 at `MIX_RATE_HZ`, as long as the speech is."""
    under = _Puller(_running(background, layout))

    gain_of = _background_gain(background)

    def added() -> Iterator[NDArray[np.float32]]:
        position = 0
        for piece in speech:
            yield piece + gain_of(position, piece.shape[1]) * under.take(piece.shape[1])
            position += piece.shape[1]

    return limited(added())


def _background_gain(background: Background) -> Callable[[int, int], NDArray[np.float32]]:
    """Return what gives the gain of so many of a background's samples from a position on, (n,); it fades before and behind each stretch of speech."""
    level = np.float32(0 if background.level_db is None else 10 ** (background.level_db / 20))
    if background.under_s is None:
        return lambda _, count: np.full(count, level)
    first, stop = (np.array([round(stretch[end] * MIX_RATE_HZ) for stretch in background.under_s]) for end in (0, 1))

    def gain_of(position: int, count: int) -> NDArray[np.float32]:
        share, places = np.zeros(count, np.float32), position + np.arange(count)
        for near in np.flatnonzero((first - FADE_SAMPLES < position + count) & (position < stop + FADE_SAMPLES)):
            outside = np.maximum(np.maximum(first[near] - places, places - stop[near] + 1), 0)
            share = np.maximum(share, 1 - np.minimum(1, outside.astype(np.float32) / FADE_SAMPLES))
        return 1 + share * (level - 1)

    return gain_of


def together(voices: Sequence[Iterator[NDArray[np.float32]]]) -> Iterator[NDArray[np.float32]]:
    """Yield the sum of several voices, (channels, n) float32, all at one rate and equally long."""
    first, *others = voices
    if not others:
        return first
    pullers = [_Puller(voice) for voice in others]

    def added() -> Iterator[NDArray[np.float32]]:
        for piece in first:
            yield sum((puller.take(piece.shape[1]) for puller in pullers), piece)

    return limited(added())


def limited(pieces: Iterator[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
    """Yield samples turned down around where they are above `CEILING`; the others are bit-identical.

    Each block has the gain that its loudest sample needs. At a block's edges the lower gain of the two blocks holds, and between them it runs
    in a straight line: so it never is above what any sample needs, and never jumps.
    """
    blocks = _blocks(pieces)
    block = next(blocks, None)
    entry = np.float32(1)
    needed = np.float32(1) if block is None else _gain_for(block)
    while block is not None:
        following = next(blocks, None)
        needed_next = np.float32(1) if following is None else _gain_for(following)
        leave = min(needed, needed_next)
        if entry < 1 or leave < 1:
            block = block * np.linspace(min(entry, needed), leave, block.shape[1], dtype=np.float32)
        yield block
        block, entry, needed = following, leave, needed_next


def _gain_for(block: NDArray[np.float32]) -> np.float32:
    peak = np.float32(np.abs(block).max(initial=0))
    return np.float32(1) if peak <= CEILING else np.float32(CEILING / peak)


def _blocks(pieces: Iterator[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
    """Cut pieces of any length into blocks of one length; the last one is what is left."""
    rest: NDArray[np.float32] | None = None
    for piece in pieces:
        joined = piece if rest is None else np.concatenate([rest, piece], 1)
        whole = joined.shape[1] // BLOCK_SAMPLES * BLOCK_SAMPLES
        for start in range(0, whole, BLOCK_SAMPLES):
            yield joined[:, start : start + BLOCK_SAMPLES]
        rest = joined[:, whole:]
    if rest is not None and rest.shape[1]:
        yield rest


def _running(background: Background, layout: str) -> Iterator[NDArray[np.float32]]:
    """Yield the background without end."""
    channels = 1 if layout == "mono" else 2
    own = "mono" if background.channel_count == 1 else "stereo"

    def begin() -> Generator[NDArray[np.float32]]:
        sound = read_samples(background.path, own, MIX_RATE_HZ)
        return shifted(sound, -background.pictures_start_s, 1 if own == "mono" else 2, MIX_RATE_HZ)

    rounds = itertools.repeat(background.pieces) if background.repeats else (background.pieces,)
    with closing(SoundReader(begin)) as reader:
        begins_s, leads_on = Fraction(0), True
        for piece, following in itertools.pairwise(itertools.chain(itertools.chain.from_iterable(rounds), (None,))):
            assert piece is not None
            first, stop = (round(time_s * MIX_RATE_HZ) for time_s in (begins_s, begins_s + piece.lasts_s))
            begins_s += piece.lasts_s
            left, position = stop - first if piece.heard_s >= piece.lasts_s else round(piece.heard_s * MIX_RATE_HZ), 0
            fades_in, leads_on = not leads_on, following is None or piece.leads_to(following)
            for samples in reader.read(round(piece.from_s * MIX_RATE_HZ), left):
                heard = np.broadcast_to(samples, (channels, samples.shape[1]))
                yield heard * _fade(position, heard.shape[1], left, fades_in=fades_in, fades_out=not leads_on)
                position += heard.shape[1]
                left -= heard.shape[1]
            yield from silence(channels, stop - first - position, MIX_RATE_HZ)
    while True:
        yield from silence(channels, MIX_RATE_HZ, MIX_RATE_HZ)


def _fade(position: int, count: int, left: int, *, fades_in: bool, fades_out: bool) -> NDArray[np.float32]:
    """Return the gain of samples from `position` on, `left` being how many there are to the end of the round."""
    gain = np.ones(count, np.float32)
    if fades_in and position < FADE_SAMPLES:
        gain *= np.minimum(1, (position + np.arange(count, dtype=np.float32)) / FADE_SAMPLES)
    if fades_out and left - count < FADE_SAMPLES:
        gain *= np.minimum(1, (left - 1 - np.arange(count, dtype=np.float32)) / FADE_SAMPLES)
    return gain


class _Puller:
    """Takes as many samples as wanted out of pieces as they come."""

    def __init__(self, pieces: Iterator[NDArray[np.float32]]) -> None:
        self._pieces = pieces
        self._rest: NDArray[np.float32] | None = None

    def take(self, count: int) -> NDArray[np.float32]:
        """Return the next `count` samples."""
        parts = [] if self._rest is None else [self._rest]
        while sum(part.shape[1] for part in parts) < count:
            parts.append(next(self._pieces))
        joined = np.concatenate(parts, 1) if parts else next(self._pieces)
        self._rest = joined[:, count:]
        return joined[:, :count]
