"""The scorer of the benchmarks: what counts as better, worse, and noise."""

from pathlib import Path

import pytest

from tests.bench.machine import last_record, machine_name, record
from tests.bench.scores import Better, Figure, compare


def figure(*rounds: float, better: Better = "lower", target: float | None = None) -> Figure:
    return Figure("a/720p", rounds, better, target, "physics")


def test_value_is_the_median_and_one_bad_round_shows_in_the_spread_alone() -> None:
    measured = figure(1.0, 1.02, 3.0)
    assert measured.value == 1.02
    assert measured.spread == pytest.approx(1.0 / 1.02)


@pytest.mark.parametrize(
    ("better", "value", "is_reached"),
    [("lower", 1.09, True), ("lower", 1.1, True), ("lower", 1.11, False), ("higher", 1.09, False), ("higher", 1.1, True), ("higher", 1.11, True)],
)
def test_target_is_reached_from_its_own_side(better: Better, value: float, is_reached: bool) -> None:
    assert figure(value, better=better, target=1.1).is_reached is is_reached
    assert figure(value, better=better).is_reached is None


@pytest.mark.parametrize(
    ("better", "before", "now", "verdict"),
    [
        ("lower", 1.0, 1.2, "worse"),
        ("lower", 1.2, 1.0, "better"),
        ("higher", 3.0, 3.6, "better"),
        ("higher", 3.6, 3.0, "worse"),
        ("lower", 1.0, 1.02, "same"),
    ],
)
def test_change_beyond_the_noise_has_a_direction(better: Better, before: float, now: float, verdict: str) -> None:
    [change] = compare([figure(now, now, better=better)], [figure(before, before, better=better).as_json()])
    assert change.verdict == verdict


def test_rounds_that_lie_apart_in_either_run_make_a_change_mean_nothing() -> None:
    steady, shaky = figure(1.0, 1.0, 1.0), figure(1.0, 1.15, 1.4)
    assert compare([steady], [figure(1.15, 1.15, 1.15).as_json()])[0].verdict == "better"
    assert compare([steady], [shaky.as_json()])[0].verdict == "same"
    assert compare([shaky], [steady.as_json()])[0].verdict == "same"


def test_figure_that_the_earlier_run_lacks_is_left_out() -> None:
    assert compare([figure(1.0)], [{"name": "b", "value": 1.0, "spread": 0.0}]) == []


def test_runs_are_recorded_and_compared_only_with_the_last_one_on_such_a_machine(tmp_path: Path) -> None:
    here = {"cpu": "AMD EPYC", "cores": 2, "gpu": ""}
    other = {**here, "cores": 16}
    assert last_record(here, tmp_path) is None
    first = record(here, [figure(1.0, 1.1)], 60.4, 0.123, tmp_path)
    record(other, [figure(9.0)], 1.0, 0.0, tmp_path)
    second = record(here, [figure(2.0)], 1.0, 0.0, tmp_path)
    assert first != second and machine_name(here) in first.name
    found = last_record(here, tmp_path)
    assert found is not None and found["figures"][0]["value"] in (2.0, 1.05)
    assert found["machine"] == here
