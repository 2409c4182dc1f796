"""When jobs start that wait."""

from orchestrator.jobs.waiting import AtWork, Pace, Took, start_times

UNKNOWN = Pace([], [])
MINUTE = Pace([Took(60.0, None)], [])
TENTH = Pace([Took(30.0, 300), Took(5.0, 50)], [])
"""A tenth of a second a frame."""


def test_next_job_starts_when_the_first_of_those_at_work_ends() -> None:
    assert start_times([None], [AtWork(5.0, 40.0), AtWork(50.0, 10.0)], 2, UNKNOWN) == [10.0]


def test_those_behind_it_start_as_places_become_free_by_how_long_a_job_takes() -> None:
    assert start_times([None] * 4, [AtWork(5.0, 40.0), AtWork(50.0, 10.0)], 2, MINUTE) == [10.0, 40.0, 70.0, 100.0]


def test_job_behind_a_long_one_starts_later_than_behind_a_short_one() -> None:
    at_work = [AtWork(5.0, 10.0)]
    assert start_times([36_000, 10, 10], at_work, 1, TENTH) == [10.0, 3610.0, 3611.0]
    assert start_times([10, 36_000, 10], at_work, 1, TENTH) == [10.0, 11.0, 3611.0]
    assert start_times([10, None, 10], at_work, 1, TENTH) == [10.0, 11.0, 28.5], "one whose length is not known is as long as those before"


def test_job_without_an_estimate_has_just_begun() -> None:
    assert start_times([None], [AtWork(1.0, None)], 1, MINUTE) == [60.0]
    assert start_times([None], [AtWork(1.0, None, 600)], 1, TENTH) == [60.0]


def test_free_place_is_taken_at_once() -> None:
    assert start_times([None] * 3, [AtWork(5.0, 20.0)], 2, MINUTE) == [0.0, 20.0, 60.0]
    assert start_times([None] * 2, [], 2, UNKNOWN) == [0.0]


def test_nothing_is_said_where_nothing_is_known() -> None:
    assert start_times([None] * 2, [AtWork(5.0, 20.0), AtWork(1.0, None)], 2, UNKNOWN) == []
    assert Pace([], [AtWork(1.0, None, 100)]).seconds(100) is None


def test_more_hosts_than_this_one_are_at_work() -> None:
    assert start_times([None] * 2, [AtWork(0.0, left_s) for left_s in (30.0, 20.0, 25.0)], 1, MINUTE) == [20.0, 25.0]


def test_job_takes_as_long_as_the_last_ones_and_before_any_has_ended_as_those_at_work_will() -> None:
    at_work = [AtWork(10.0, 20.0, 60), AtWork(30.0, 20.0, 100), AtWork(1.0, None)]
    assert Pace([Took(60.0, 100), Took(80.0, 100)], at_work).seconds(None) == 70.0
    assert Pace([], at_work).seconds(None) == 40.0
    assert Pace([], at_work).seconds(8) == 4.0
