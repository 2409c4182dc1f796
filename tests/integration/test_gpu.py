"""Models on a real GPU. Runs where an NVIDIA GPU shows, and only there: nothing can stand in for it."""

import pytest

from deploy.local.gpu import gpu_expected
from orchestrator.embedded import open_triton
from orchestrator.inference.selftest import self_test
from orchestrator.settings import Settings

pytestmark = pytest.mark.skipif(gpu_expected() is None, reason="no NVIDIA GPU shows on this machine (no /dev/nvidiactl, no card on the PCI bus)")


def test_every_role_runs_on_the_gpu_and_triton_proves_it() -> None:
    with open_triton(Settings(device="gpu")) as client:
        found = self_test(client, "gpu")
    for status in found.roles.values():
        assert set(status.instance_kinds) == {"KIND_GPU"}
        assert status.execution_provider == "CUDAExecutionProvider"
        assert status.execution_count > 0
    assert not found.gpu_utilisation or max(found.gpu_utilisation.values()) > 0


def test_auto_takes_the_gpu() -> None:
    with open_triton(Settings(device="auto")) as client:
        assert {status.device for status in self_test(client).roles.values()} == {"GPU"}
