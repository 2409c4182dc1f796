"""Shared memory against gRPC on the real Triton: the same answers, and nothing left behind, however a process ends."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import wait
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException

from deploy.local.server import LocalTriton
from orchestrator.errors import InferenceRejected
from orchestrator.inference import shared_memory
from orchestrator.inference.client import BATCH, INTERACTIVE, TritonClient
from orchestrator.inference.contract import describe_model, output_of
from orchestrator.inference.golden import golden_inputs
from orchestrator.inference.lip_model import LipModel
from orchestrator.inference.shared_memory import SharedMemoryPool
from orchestrator.settings import Settings

REGIONS = Path("/dev/shm")


@pytest.fixture
def shared(triton: LocalTriton) -> Iterator[TritonClient]:
    with TritonClient(triton.grpc_address, transport="shared_memory") as client:
        yield client


def registered(address: str) -> set[str]:
    with triton_grpc.InferenceServerClient(address) as connection:
        return set(connection.get_system_shared_memory_status(as_json=True).get("regions", {}))


def answers(client: TritonClient, role: str, count: int) -> NDArray[Any]:
    return client.infer(role, golden_inputs(describe_model(client, role), count), output_of(role)).result()


@pytest.mark.parametrize("role", ["face_detector", "lip_sync"])
def test_answers_are_the_same_to_the_bit_either_way(role: str, triton: LocalTriton, shared: TritonClient) -> None:
    with TritonClient(triton.grpc_address, transport="grpc") as grpc:
        for count in (1, 3, 8):
            np.testing.assert_array_equal(answers(shared, role, count), answers(grpc, role, count))
        assert (shared.transport, grpc.transport) == ("shared_memory", "grpc")


def test_many_requests_at_a_time_each_get_their_own_answer_in_reused_memory(shared: TritonClient, triton: LocalTriton) -> None:
    others = registered(triton.grpc_address)
    lip_model = LipModel(shared)
    silence = np.full((80, 16), -4.0, np.float32)
    for _ in range(3):
        levels = range(10, 120, 10)
        futures = [lip_model.generate([np.full((lip_model.size_px, lip_model.size_px, 3), level, np.uint8)], [silence]) for level in levels]
        wait(futures)
        assert all((future.result() == level).all() for level, future in zip(levels, futures, strict=True)), "a flat picture stays flat"
    assert 1 < len(registered(triton.grpc_address) - others) <= 12, "memory is used again"


def test_closing_leaves_nothing_registered_and_nothing_in_memory(triton: LocalTriton) -> None:
    before = registered(triton.grpc_address)
    with TritonClient(triton.grpc_address, transport="shared_memory") as client:
        answers(client, "lip_sync", 2)
        prefixes = {name.rpartition("_")[0] for name in registered(triton.grpc_address) - before}
        assert len(prefixes) == 1 and list(REGIONS.glob(f"{min(prefixes)}*"))
    assert registered(triton.grpc_address) <= before, "what an earlier client gave back goes when Triton is done with it"
    assert not list(REGIONS.glob(f"{min(prefixes)}*"))


def test_what_killed_processes_left_goes_when_the_next_one_comes_and_what_living_ones_use_stays(triton: LocalTriton, shared: TritonClient) -> None:
    answers(shared, "lip_sync", 1)
    living = registered(triton.grpc_address)
    program = (
        "import sys, time, numpy as np\n"
        "from orchestrator.inference.client import TritonClient\n"
        "client = TritonClient(sys.argv[1], transport='shared_memory')\n"
        "client.infer('face_detector', {'image': np.zeros((1, 384, 384, 3), np.uint8)}, 'faces').result()\n"
        "print('ready', flush=True); time.sleep(60)\n"
    )
    children = [subprocess.Popen([sys.executable, "-c", program, triton.grpc_address], stdout=subprocess.PIPE) for _ in range(2)]
    for child in children:
        assert child.stdout is not None and child.stdout.readline() == b"ready\n"
    left = registered(triton.grpc_address) - living
    assert len(left) >= 4
    for child in children:
        child.send_signal(signal.SIGKILL)
        child.communicate()
    with TritonClient(triton.grpc_address, transport="shared_memory") as client:
        answers(client, "face_detector", 1)
        assert not left & registered(triton.grpc_address)
        assert living <= registered(triton.grpc_address)
    answers(shared, "lip_sync", 1)


def test_requests_beyond_the_memory_travel_by_grpc(shared: TritonClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_memory, "MAX_POOL_BYTES", 8192)
    assert answers(shared, "lip_sync", 2).shape[0] == 2


def test_memory_of_a_request_without_an_answer_is_not_used_again_and_goes_when_triton_is_done_with_it(
    triton: LocalTriton, monkeypatch: pytest.MonkeyPatch
) -> None:
    with triton_grpc.InferenceServerClient(triton.grpc_address) as connection:
        pool = SharedMemoryPool(connection)
        region = pool.take(100_000)
        assert region is not None
        pool.give_up(region)
        other = pool.take(100_000)
        assert other is not None and other is not region
        assert {region.name, other.name} <= registered(triton.grpc_address)
        monkeypatch.setattr(shared_memory, "QUARANTINE_S", 0.0)
        time.sleep(0.001)
        pool.give_back(other)
        assert pool.take(100_000) is other
        assert {region.name, other.name} & registered(triton.grpc_address) == {other.name}
        pool.close()


@pytest.mark.parametrize("is_closed", [False, True])
def test_memory_that_triton_is_still_at_is_let_go_of_later(triton: LocalTriton, monkeypatch: pytest.MonkeyPatch, is_closed: bool) -> None:
    """It answers a moment before it is through with a region, and refuses until then. A region that was refused once stayed registered for good."""
    monkeypatch.setattr(shared_memory, "QUARANTINE_S", 0.0)
    others = registered(triton.grpc_address)
    with triton_grpc.InferenceServerClient(triton.grpc_address) as connection:
        pool = SharedMemoryPool(connection)
        region = pool.take(100_000)
        assert region is not None
        pool.give_up(region)
        let_go = connection.unregister_system_shared_memory
        refused: list[str] = []

        def refuse_once(name: str, client_timeout: float) -> None:
            if not refused:
                refused.append(name)
                raise InferenceServerException(
                    f"Cannot unregister shared memory region '{name}', it is currently in use.", status="StatusCode.INTERNAL"
                )
            let_go(name, client_timeout=client_timeout)

        connection.unregister_system_shared_memory = refuse_once
        if not is_closed:
            time.sleep(0.001)
            pool.take(4)
            assert refused == [region.name] and region.name in registered(triton.grpc_address)
            time.sleep(0.001)
            pool.take(4)
            assert region.name not in registered(triton.grpc_address)
        pool.close()
        assert refused and registered(triton.grpc_address) == others


def test_pool_is_closed_without_asking_a_triton_that_hangs_for_every_region(triton: LocalTriton) -> None:
    """Each question once took its whole deadline: a render under a stopped Triton took two minutes to end."""
    asked: list[str] = []

    def hang(name: str, client_timeout: float) -> None:
        asked.append(name)
        raise InferenceServerException("Deadline Exceeded", status="StatusCode.DEADLINE_EXCEEDED")

    with triton_grpc.InferenceServerClient(triton.grpc_address) as connection:
        pool = SharedMemoryPool(connection)
        taken = [pool.take(size_bytes) for size_bytes in (100_000, 200_000, 300_000)]
        connection.unregister_system_shared_memory = hang
        pool.close()
        assert len(asked) == 1 and None not in taken
    with TritonClient(triton.grpc_address, transport="shared_memory") as client:
        answers(client, "lip_sync", 1)
        assert not {region.name for region in taken if region} & registered(triton.grpc_address), "a later pool takes them back"


def test_triton_elsewhere_is_spoken_to_by_grpc_unless_shared_memory_was_asked_for(
    triton: LocalTriton, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A Triton that cannot open this host's memory: what it looks like from here when /dev/shm is another one."""
    monkeypatch.setattr("deploy.local.guard.REGIONS", tmp_path)
    with TritonClient(triton.grpc_address) as client:
        assert answers(client, "lip_sync", 1).shape[0] == 1
        assert client.transport == "grpc"
    with TritonClient(triton.grpc_address, transport="shared_memory") as client, pytest.raises(InferenceRejected, match="LIPSYNC_TRANSPORT"):
        answers(client, "lip_sync", 1)
    assert not list(tmp_path.iterdir())


def test_triton_started_again_at_the_same_address_is_given_new_memory() -> None:
    settings = Settings(device="cpu")
    first = LocalTriton.start(settings.triton_home, settings.model_repository)
    port = int(first.grpc_address.rpartition(":")[2])
    with TritonClient(first.grpc_address) as client:
        expected = answers(client, "lip_sync", 2)
        pictures = golden_inputs(describe_model(client, "lip_sync"), 2)
        first.stop()
        with LocalTriton.start(settings.triton_home, settings.model_repository, grpc_port=port) as second:
            deadline = time.monotonic() + 30
            while not client.is_server_ready() and time.monotonic() < deadline:
                time.sleep(0.1)
            for _ in range(2):
                np.testing.assert_array_equal(client.infer("lip_sync", pictures, "mouth").result(), expected)
            assert client.transport == "shared_memory"
            assert registered(second.grpc_address)


def test_interactive_requests_overtake_those_of_batches(client: TritonClient) -> None:
    inputs = golden_inputs(describe_model(client, "lip_sync"), 8)
    ended: list[str] = []
    futures = []
    ended_before = 0
    for name, level, count in (("batch", BATCH, 24), ("interactive", INTERACTIVE, 3)):
        for _ in range(count):
            future = client.at_priority(level).infer("lip_sync", inputs, "mouth")
            future.add_done_callback(lambda _, name=name: ended.append(name))  # type: ignore[misc]
            futures.append(future)
            ended_before = len(ended)
    wait(futures)
    assert not [future for future in futures if future.exception()]
    last = len(ended) - 1 - ended[::-1].index("interactive")
    # As against those that were done when the last one was asked for: on a machine that stood still meanwhile, that may be all the others.
    assert last - ended_before < 14, f"the last interactive request was done {last + 1}th of 27, and {ended_before} were when it was asked for"
