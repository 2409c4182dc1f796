"""Files that requests are about to use."""

from pathlib import Path

import pytest

from orchestrator.api.holds import Holds


def test_file_is_held_until_the_last_request_lets_go() -> None:
    holds, path = Holds(), Path("a")
    with holds.holding() as first:
        first.add(path)
        assert holds.has(path)
        with holds.holding() as second:
            second.add(path)
            second.add(Path("b"))
            assert holds.has(path) and holds.has(Path("b"))
        assert holds.has(path) and not holds.has(Path("b"))
    assert not holds.has(path)


def test_request_that_fails_lets_go_too() -> None:
    holds = Holds()
    with pytest.raises(ValueError, match="x"), holds.holding() as hold:
        hold.add(Path("a"))
        raise ValueError("x")
    assert not holds.has(Path("a"))
