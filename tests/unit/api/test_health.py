"""Readiness is asked for by probes, and by every render that is about to be sent."""

import asyncio
import threading

import pytest

from orchestrator.api import health
from orchestrator.api.health import Readiness
from orchestrator.errors import InferenceUnavailable
from orchestrator.inference.client import TritonClient
from orchestrator.inference.selftest import SelfTest
from orchestrator.settings import Device


def test_many_that_ask_while_triton_hangs_share_two_looks_and_take_no_thread_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each once took a thread and looked for itself, one behind the other: with forty of them, no other request was answered for minutes."""
    looks, hangs = list[int](), threading.Event()

    def look(client: TritonClient) -> None:
        looks.append(threading.active_count())
        hangs.wait(10)
        raise InferenceUnavailable("Triton hangs.")

    async def ask() -> list[BaseException | object]:
        asked = [asyncio.create_task(readiness.check()) for _ in range(40)]
        while not looks:
            await asyncio.sleep(0)
        hangs.set()
        return await asyncio.gather(*asked, return_exceptions=True)

    monkeypatch.setattr(health, "check_ready", look)
    before = threading.active_count()
    with TritonClient("127.0.0.1:1") as client:
        readiness = Readiness(client)
        found = asyncio.run(ask())
    assert len(found) == 40 and all(isinstance(each, InferenceUnavailable) for each in found)
    assert len({id(each) for each in found}) == 40, "each raises its own"
    assert len(looks) <= 2 and max(looks) <= before + 1


def test_self_test_is_made_again_only_after_triton_was_away(monkeypatch: pytest.MonkeyPatch) -> None:
    is_away, tests = False, list[SelfTest]()

    def look(client: TritonClient) -> None:
        if is_away:
            raise InferenceUnavailable("Triton is away.")

    def test(client: TritonClient, wanted: Device) -> SelfTest:
        tests.append(SelfTest("Triton", {}, {}, ()))
        return tests[-1]

    monkeypatch.setattr(health, "check_ready", look)
    monkeypatch.setattr(health, "self_test", test)
    with TritonClient("127.0.0.1:1") as client:
        readiness = Readiness(client)
        assert asyncio.run(readiness.check()) is asyncio.run(readiness.check()) and len(tests) == 1
        is_away = True
        with pytest.raises(InferenceUnavailable):
            asyncio.run(readiness.check())
        is_away = False
        asyncio.run(readiness.check())
    assert len(tests) == 2
