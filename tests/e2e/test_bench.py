"""A smoke of the benchmarks: everything short, two figures, and a record that says what it was."""

import json
from pathlib import Path

import pytest

from tests.bench.__main__ import main
from tests.bench.machine import RESULTS


def test_figures_are_measured_side_by_side_and_recorded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = set(RESULTS.glob("*"))
    assert main(["e", "f", "--effort", "smoke", "--out", str(tmp_path)]) == 0
    [file] = tmp_path.glob("*.json")
    run = json.loads(file.read_text())
    assert [figure["name"] for figure in run["figures"]] == [
        "e/360p/2-jobs", "e/360p/2-at-once", "e/360p/2-at-once-slowest-over-fastest", "f/360p/cached-s", "f/360p/new-video-s"
    ]  # fmt: skip
    assert all(figure["value"] > 0 and figure["limit"] for figure in run["figures"])
    assert run["figures"][0]["detail"]["mean_batch"] >= 1
    assert run["machine"]["cores"] >= 1 and run["machine"]["x264"] and run["machine"]["triton"].startswith("Triton")
    assert "no earlier run" in capsys.readouterr().out
    assert set(RESULTS.glob("*")) == before, "only whole runs of normal effort are kept"


def test_unknown_figure_is_refused() -> None:
    with pytest.raises(SystemExit):
        main(["z"])
