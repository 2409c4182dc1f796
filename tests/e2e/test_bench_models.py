"""`lipsync bench models` as a program: its numbers agree with each other and with Triton's."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc

from deploy.local.server import LocalTriton
from orchestrator.inference.client import TritonClient
from orchestrator.inference.usage import model_use
from tests.clips import write_video
from tests.programs import abandoned_memory, lipsync, wait_until


def bench(triton: LocalTriton, *arguments: str | Path) -> dict[str, Any]:
    done = lipsync("bench", "models", *arguments, "--seconds", "0.5", "--json", "--triton", triton.grpc_address)
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def test_every_combination_is_measured_and_too_large_batches_are_skipped(triton: LocalTriton, client: TritonClient) -> None:
    before = model_use(client, "lip_sync").inference_count
    report = bench(triton, "lip_sync", "--concurrency", "1,3", "--batch", "1,4,64")
    [model] = report["models"]
    assert (model["role"], model["pack"], model["device"], model["skipped_batches"]) == ("lip_sync", "mouth-warp", "CPU", [64])
    results = model["results"]
    assert [(result["batch"], result["concurrency"]) for result in results] == [(1, 1), (1, 3), (4, 1), (4, 3)]
    for result in results:
        assert result["requests"] > 0 and result["failed"] == 0
        assert 0 < result["latency_ms"]["p50"] <= result["latency_ms"]["p90"] <= result["latency_ms"]["p95"] <= result["latency_ms"]["p99"]
        assert result["batch"] <= result["mean_batch"] <= 8
        assert result["compute_ms"] > 0 and result["queue_ms"] >= 0
        # Little's law: what is outstanding is throughput times latency. Loose, because a noisy machine has few requests in half a second.
        assert result["items_per_s"] / result["batch"] * result["latency_ms"]["p50"] / 1e3 < result["concurrency"] * 2
    assert results[0]["mean_batch"] == 1 and results[2]["mean_batch"] == 4
    answered = sum(result["requests"] * result["batch"] for result in results)
    assert model_use(client, "lip_sync").inference_count - before >= answered


@pytest.mark.parametrize("role", ["face_detector", "lip_sync"])
def test_shared_memory_carries_the_same_requests_and_leaves_nothing(role: str, triton: LocalTriton, clip: Path) -> None:
    with tritonclient.grpc.InferenceServerClient(triton.grpc_address) as connection:
        before = set(connection.get_system_shared_memory_status().regions)
    memory = abandoned_memory()
    report = bench(triton, role, "--shm", "--video", clip, "--concurrency", "2", "--batch", "4")
    [result] = report["models"][0]["results"]
    assert result["shared_memory"] and result["requests"] > 0 and result["failed"] == 0
    assert report["inputs"] == str(clip)
    wait_until(lambda: abandoned_memory() <= memory, "its shared memory is gone")
    with tritonclient.grpc.InferenceServerClient(triton.grpc_address) as connection:
        assert set(connection.get_system_shared_memory_status().regions) <= before


def test_table_has_a_line_for_each_combination(triton: LocalTriton) -> None:
    done = lipsync("bench", "models", "lip_sync", "--concurrency", "1,2", "--batch", "2", "--seconds", "0.3", "--triton", triton.grpc_address)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^lip_sync: mouth-warp version \d+, 2 instance\(s\) on CPU", done.stdout, re.MULTILINE)
    for column in ("in flight", "items/s", "p99 ms", "batch formed", "queue ms", "compute ms", "failed"):
        assert column in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mouth"], "invalid_option: There is no role 'mouth'; give one of face_detector, lip_sync"),
        (["--batch", "1,x"], "invalid_option: --batch takes whole numbers"),
        (["--concurrency", "0"], "invalid_option: --concurrency takes whole numbers"),
    ],
)
def test_wrong_option_is_refused_before_triton_is_asked(arguments: list[str], message: str) -> None:
    done = lipsync("bench", "models", *arguments, "--triton", "127.0.0.1:1")
    assert done.returncode == 1
    assert message in done.stderr


def test_video_without_a_face_is_refused(triton: LocalTriton, tmp_path: Path) -> None:
    write_video(tmp_path / "blank.mp4", [np.full((128, 128, 3), 90, np.uint8)] * 5)
    done = lipsync("bench", "models", "lip_sync", "--video", tmp_path / "blank.mp4", "--triton", triton.grpc_address)
    assert done.returncode == 1
    assert "no_face_found: The first frames of blank.mp4 show no face" in done.stderr
