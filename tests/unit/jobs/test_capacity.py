"""How many renders run at a time."""

import json
import logging
import os
from pathlib import Path

import pytest

from orchestrator.cores import available_cores
from orchestrator.jobs import capacity
from orchestrator.jobs.capacity import available_bytes, concurrent_renders, job_bytes, renders_by_cores, within_memory
from orchestrator.media.encoding import Encoding
from orchestrator.settings import Settings
from orchestrator.tuned import TUNED_FILE, encoder_threads

CORES = available_cores()
BY_CORES = renders_by_cores(CORES, Encoding().resolved_thread_count)
JOB_BYTES = job_bytes(Settings())


def tuned(data: Path, count: int, cores: int = CORES, threads: int = Encoding().resolved_thread_count) -> None:
    record = {"concurrent_renders": count, "cores": cores, "device": "cpu", "encoder_threads": threads, "renders": []}
    (data / TUNED_FILE).write_text(json.dumps(record))


@pytest.fixture(autouse=True)
def plenty_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capacity, "available_bytes", lambda: 64 * JOB_BYTES)


def test_what_was_measured_here_is_taken_unless_a_number_is_set(tmp_path: Path) -> None:
    assert concurrent_renders(Settings(data=tmp_path)) == BY_CORES
    tuned(tmp_path, 5)
    assert concurrent_renders(Settings(data=tmp_path)) == 5
    assert concurrent_renders(Settings(data=tmp_path, max_concurrent_renders=1)) == 1


@pytest.mark.parametrize("text", ["", "{", "[]", '{"cores": 1}', json.dumps({"concurrent_renders": 5, "cores": CORES})])
def test_damaged_record_is_as_good_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / TUNED_FILE).write_text(text)
    assert concurrent_renders(Settings(data=tmp_path)) == BY_CORES


def test_what_was_measured_with_other_cores_does_not_count(tmp_path: Path) -> None:
    tuned(tmp_path, 7, CORES + 1)
    assert concurrent_renders(Settings(data=tmp_path)) == BY_CORES


def test_renders_never_take_more_memory_than_there_is_and_one_always_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tuned(tmp_path, 8)
    monkeypatch.setattr(capacity, "available_bytes", lambda: 3 * JOB_BYTES + 1)
    assert concurrent_renders(Settings(data=tmp_path)) == 3
    assert within_memory(8, 0, JOB_BYTES) == 1


@pytest.mark.parametrize(
    ("cores", "settings", "megabytes"),
    [
        (2, {"device": "cpu"}, 700),
        (3, {"device": "cpu"}, 1150),
        (16, {"device": "cpu"}, 1150),
        (2, {"device": "gpu"}, 1176),
        (2, {"triton": "gpu-host:8001"}, 1176),
        (16, {"device": "cpu", "encoder_threads": 2}, 700),
        (2, {"device": "cpu", "encoder_threads": 4}, 1150),
    ],
)
def test_memory_of_a_render_follows_from_cores_and_device(
    cores: int, settings: dict[str, str | int], megabytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    assert job_bytes(Settings.model_validate(settings)) == megabytes << 20


def test_encoder_has_as_many_threads_as_set_or_else_measured_here(tmp_path: Path) -> None:
    assert encoder_threads(Settings(data=tmp_path)) == 0, "one per core"
    tuned(tmp_path, 2, threads=3)
    assert encoder_threads(Settings(data=tmp_path)) == 3
    assert encoder_threads(Settings(data=tmp_path, encoder_threads=5)) == 5
    tuned(tmp_path, 2, CORES + 1)
    assert encoder_threads(Settings(data=tmp_path)) == 0


@pytest.mark.parametrize(("threads", "count"), [(16, 2), (4, 5), (1, 17)])
def test_untuned_renders_fill_the_cores_with_what_threads_they_have(
    threads: int, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))
    assert concurrent_renders(Settings(data=tmp_path, encoder_threads=threads)) == count


def test_log_says_how_many_and_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "lipsync.jobs")
    concurrent_renders(Settings(data=tmp_path))
    tuned(tmp_path, 8)
    concurrent_renders(Settings(data=tmp_path))
    monkeypatch.setattr(capacity, "available_bytes", lambda: 3 * JOB_BYTES)
    concurrent_renders(Settings(data=tmp_path))
    concurrent_renders(Settings(data=tmp_path, max_concurrent_renders=4))
    assert caplog.messages == [
        f"renders at a time: {BY_CORES}, by the cores",
        "renders at a time: 8, as `lipsync tune` measured",
        "renders at a time: 3, for lack of memory; 8 as `lipsync tune` measured",
        "renders at a time: 4, as LIPSYNC_MAX_CONCURRENT_RENDERS says",
    ]


@pytest.mark.parametrize(
    ("limit_file", "used_file", "stat_file", "total", "unlimited"),
    [
        ("memory.max", "memory.current", "memory.stat", "", "max"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat", "total_", "9223372036854771712"),
    ],
)
def test_container_limit_bounds_the_memory(limit_file: str, used_file: str, stat_file: str, total: str, unlimited: str, tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal:       8000 kB\nMemAvailable:   4000 kB\n")
    assert available_bytes(tmp_path) == 4000 << 10
    group = tmp_path / "sys/fs/cgroup"
    (group / used_file).parent.mkdir(parents=True)
    (group / used_file).write_text("1500000\n")
    (group / stat_file).write_text(f"{total}active_file 300000\n{total}inactive_file 200000\n")
    for limit, expected in ((unlimited, 4000 << 10), ("3000000", 2_000_000), ("500000", 0)):
        (group / limit_file).write_text(f"{limit}\n")
        assert available_bytes(tmp_path) == expected
