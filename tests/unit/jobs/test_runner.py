"""How patiently attempts are repeated."""

from orchestrator.jobs.runner import back_off_s


def test_wait_between_attempts_doubles_up_to_a_bound_however_many_may_fail() -> None:
    assert [back_off_s(failures) for failures in (1, 2, 5, 6, 7, 5000)] == [1.0, 2.0, 16.0, 30.0, 30.0, 30.0]
