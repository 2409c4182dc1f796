"""How many cores this process may use."""

import os
from pathlib import Path

import pytest

from orchestrator.cores import available_cores
from orchestrator.media.encoding import Encoding
from orchestrator.media.output import choose_output
from tests.clips import info_of

QUOTAS = [("max 100000", 8), ("200000 100000", 2), ("150000 100000", 2), ("10000 100000", 1), ("1600000 100000", 8), ("-1 100000", 8), ("", 8)]
"""What a container may use, us of time in us, and how many of eight cores that leaves."""

CGROUPS = {"v2": ("cpu.max",), "v1": ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")}
"""In which files it stands."""


def with_quota(root: Path, quota: str, cgroup: str) -> Path:
    group = root / "sys/fs/cgroup"
    numbers = [quota] if cgroup == "v2" else quota.split()
    for file, number in zip(CGROUPS[cgroup], numbers, strict=False):
        (group / file).parent.mkdir(parents=True, exist_ok=True)
        (group / file).write_text(f"{number}\n")
    return root


@pytest.mark.parametrize("cgroup", CGROUPS)
@pytest.mark.parametrize(("quota", "expected"), QUOTAS)
def test_container_quota_bounds_the_cores(quota: str, expected: int, cgroup: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    assert available_cores(tmp_path) == 8, "there is no quota"
    assert available_cores(with_quota(tmp_path, quota, cgroup)) == expected


def test_encoder_has_a_thread_for_each_core_that_it_may_use() -> None:
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert Encoding().resolved_thread_count == 1
        assert Encoding(thread_count=5).resolved_thread_count == 5
        output = choose_output(Encoding(), info_of())
    finally:
        os.sched_setaffinity(0, allowed)
    assert output.encoding.resolved_thread_count == 1, "the cores that a render began with are meant, to its end"


def test_encoder_has_16_threads_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    assert Encoding().resolved_thread_count == 16
