"""What a user is told while a stage runs, on a clock that the test turns."""

from collections.abc import Callable

import pytest

from orchestrator.pipeline import progress as progress_module
from orchestrator.pipeline.progress import Progress, StageClock


class Clock:
    """A monotonic clock that stands still until it is turned."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress_module, "time", clock)
    return clock


def recorder() -> tuple[list[Progress], Callable[[Progress], None]]:
    reports: list[Progress] = []
    return reports, reports.append


def test_stage_announces_itself_before_its_first_frame(clock: Clock) -> None:
    reports, report = recorder()
    StageClock("analyse", 40, report)
    assert reports == [Progress("analyse", 0, 40, 0.0, None)]


def test_speed_and_time_left_follow_from_the_frames_so_far(clock: Clock) -> None:
    reports, report = recorder()
    stage = StageClock("render", 100, report)
    clock.now_s += 1.0
    stage.advance(5)
    assert reports[-1] == Progress("render", 5, 100, 5.0, None), "what comes before the first frames tells nothing of the others"
    clock.now_s += 1.0
    stage.advance(20)
    assert reports[-1] == Progress("render", 20, 100, 10.0, 80 / 15)
    assert stage.elapsed_s == 2.0


def test_reports_come_a_few_times_a_second_and_always_at_the_end(clock: Clock) -> None:
    reports, report = recorder()
    stage = StageClock("render", 1000, report)
    for done in range(1, 1001):
        clock.now_s += 0.01
        stage.advance(done)
    assert 85 <= len(reports) <= 102
    assert reports[-1].done == 1000
    assert reports[-1].eta_s == 0.0
    assert [item.done for item in reports] == sorted(item.done for item in reports)


def test_unknown_total_has_no_time_left(clock: Clock) -> None:
    reports, report = recorder()
    stage = StageClock("read", 0, report)
    clock.now_s += 1.0
    stage.advance(5)
    assert reports[-1] == Progress("read", 5, 0, 5.0, None)


def test_what_the_listener_raises_ends_the_stage(clock: Clock) -> None:
    class Cancelled(Exception):
        pass

    def cancel(progress: Progress) -> None:
        if progress.done:
            raise Cancelled

    stage = StageClock("render", 10, cancel)
    clock.now_s += 1.0
    with pytest.raises(Cancelled):
        stage.advance(1)


def test_stage_without_a_listener_only_measures(clock: Clock) -> None:
    stage = StageClock("render", 10, None)
    clock.now_s += 1.5
    stage.advance(5)
    assert stage.elapsed_s == 1.5


def test_stage_ends_with_the_frames_it_turned_out_to_have_and_a_cache_has_no_speed() -> None:
    seen: list[Progress] = []
    stage = StageClock("analyse", 0, seen.append)
    stage.finish(150)
    assert (seen[-1].done, seen[-1].total, seen[-1].frames_per_s) == (150, 150, 0.0)
