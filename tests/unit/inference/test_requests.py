"""Several requests: sent ahead, or as one."""

from concurrent.futures import Future

import pytest

from orchestrator.inference.requests import Joined


def test_joined_requests_give_their_results_in_order_or_the_first_error() -> None:
    parts: list[Future[int]] = [Future(), Future()]
    joined = Joined(parts)
    parts[1].set_result(2)
    assert not joined.done()
    parts[0].set_result(1)
    assert joined.result(0) == [1, 2]
    failing: list[Future[int]] = [Future(), Future()]
    joined = Joined(failing)
    failing[1].set_exception(OSError("gone"))
    failing[0].set_result(1)
    with pytest.raises(OSError, match="gone"):
        joined.result(0)
    assert Joined[int]([]).result(0) == []
    waiting: list[Future[int]] = [Future(), Future()]
    Joined(waiting).cancel()
    assert all(part.cancelled() for part in waiting)
