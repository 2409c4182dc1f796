"""Files that requests are about to use."""

from pathlib import Path

import pytest

from orchestrator.api.holds import Holds


def test_file_is_held_until_the_last_request_lets_go() -> None:
    holds, path = Holds(), Path("a")
    with holds.holding() as first:
        first.add(path)
        assert path in holds.held()
        with holds.holding() as second:
            second.add(path)
            second.add(Path("b"))
            assert path in holds.held() and Path("b") in holds.held()
        assert path in holds.held() and Path("b") not in holds.held()
    assert path not in holds.held()


def test_request_that_fails_lets_go_too() -> None:
    holds = Holds()
    with pytest.raises(ValueError, match="x"), holds.holding() as hold:
        hold.add(Path("a"))
        raise ValueError("x")
    assert Path("a") not in holds.held()
