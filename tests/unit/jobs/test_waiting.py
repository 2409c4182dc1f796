"""When jobs start that wait."""

from orchestrator.jobs.waiting import AtWork, expected_s, start_times


def test_next_job_starts_when_the_first_of_those_at_work_ends() -> None:
    assert start_times(1, [AtWork(5.0, 40.0), AtWork(50.0, 10.0)], 2, None) == [10.0]


def test_those_behind_it_start_as_places_become_free_by_how_long_a_job_takes() -> None:
    assert start_times(4, [AtWork(5.0, 40.0), AtWork(50.0, 10.0)], 2, 60.0) == [10.0, 40.0, 70.0, 100.0]


def test_job_without_an_estimate_has_just_begun() -> None:
    assert start_times(1, [AtWork(1.0, None)], 1, 60.0) == [60.0]


def test_free_place_is_taken_at_once() -> None:
    assert start_times(3, [AtWork(5.0, 20.0)], 2, 60.0) == [0.0, 20.0, 60.0]
    assert start_times(2, [], 2, None) == [0.0]


def test_nothing_is_said_where_nothing_is_known() -> None:
    assert start_times(2, [AtWork(5.0, 20.0), AtWork(1.0, None)], 2, None) == []
    assert expected_s([], [AtWork(1.0, None)]) is None


def test_more_hosts_than_this_one_are_at_work() -> None:
    assert start_times(2, [AtWork(0.0, left_s) for left_s in (30.0, 20.0, 25.0)], 1, 60.0) == [20.0, 25.0]


def test_job_takes_as_long_as_the_last_ones_and_before_any_has_ended_as_those_at_work_will() -> None:
    at_work = [AtWork(10.0, 20.0), AtWork(30.0, 20.0), AtWork(1.0, None)]
    assert expected_s([60.0, 80.0], at_work) == 70.0
    assert expected_s([], at_work) == 40.0
