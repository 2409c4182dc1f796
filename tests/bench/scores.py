"""Figures, and how two runs of them compare: pure arithmetic."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any, Literal

Better = Literal["lower", "higher"]
Verdict = Literal["better", "worse", "same"]

LEAST_NOISE = 0.03
"""Change, as a share, that is never taken for one: two runs of the same code on a quiet machine differ by that."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One ratio, measured in rounds."""

    name: str
    """Letter of the issue, then what it was measured with, as in `a/1080p/veryfast`."""
    rounds: tuple[float, ...]
    """The ratio of each round; both of its sides were measured in the round, one right after the other."""
    better: Better
    target: float | None
    """What it should reach; None where the figure is for information."""
    limit: str
    """What would be the limit."""
    detail: Mapping[str, Any] = field(default_factory=dict)
    """What the ratio was made of, with units in the names."""

    @property
    def value(self) -> float:
        """The figure: the median of its rounds."""
        return median(self.rounds)

    @property
    def spread(self) -> float:
        """How far its rounds lie apart: half the distance of the largest and the smallest, as a share of the value."""
        return (max(self.rounds) - min(self.rounds)) / 2 / self.value if self.value else 0.0

    @property
    def is_reached(self) -> bool | None:
        """Whether the target is reached; None where there is none."""
        if self.target is None:
            return None
        return self.value <= self.target if self.better == "lower" else self.value >= self.target

    def as_json(self) -> dict[str, Any]:
        """Return the figure for the record."""
        return {**asdict(self), "rounds": [round(ratio, 4) for ratio in self.rounds], "value": round(self.value, 4), "spread": round(self.spread, 4)}


@dataclass(frozen=True, slots=True)
class Change:
    """What became of a figure since an earlier run."""

    name: str
    before: float
    now: float
    noise: float
    """Share below which a change means nothing."""
    verdict: Verdict


def compare(figures: Iterable[Figure], earlier: Sequence[Mapping[str, Any]]) -> list[Change]:
    """Compare figures with the record of an earlier run; those that it lacks are left out.

    A change counts beyond the noise alone, which is how far the rounds of both runs lie apart, and never less than `LEAST_NOISE`.
    """
    before = {str(figure["name"]): figure for figure in earlier}
    changes = []
    for figure in figures:
        if figure.name not in before:
            continue
        old = float(before[figure.name]["value"])
        noise = max(LEAST_NOISE, figure.spread + float(before[figure.name]["spread"]))
        change = figure.value / old - 1 if old else 0.0
        if abs(change) <= noise:
            verdict: Verdict = "same"
        else:
            verdict = "better" if (change < 0) == (figure.better == "lower") else "worse"
        changes.append(Change(figure.name, old, figure.value, noise, verdict))
    return changes
