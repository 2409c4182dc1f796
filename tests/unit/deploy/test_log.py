"""Triton's log, which lives as long as Triton."""

import subprocess
from pathlib import Path

import pytest

from deploy.local import log as log_module
from deploy.local.log import TritonLog


@pytest.mark.parametrize("name", [None, "triton.log"])
def test_log_that_has_become_too_large_is_emptied_once_it_is_read(name: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_module, "MAX_LOG_BYTES", 1000)
    path = None if name is None else tmp_path / name
    if path is not None:
        path.write_text("of another time")
    log = TritonLog(path)

    def written(text: str) -> str:
        subprocess.run(["printf", text], stdout=log.file, check=True)
        return log.read_new()

    assert (written(900 * "a"), log.size_bytes()) == (900 * "a", 900)
    assert (written(900 * "b"), log.size_bytes()) == (900 * "b", 0)
    assert (written("c"), log.text(), log.size_bytes()) == ("c", "c", 1), "whoever writes goes on at the new end"
    log.close()
    assert path is None or path.read_text() == "of another timec"
