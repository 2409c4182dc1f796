"""What the tests of whole programs share."""

from collections.abc import Iterator

import psutil
import pytest

from tests.programs import abandoned_memory, is_ours, wait_until


@pytest.fixture
def nothing_left() -> Iterator[None]:
    """Fail if the test leaves a process or a piece of shared memory behind."""
    processes, memory = {process.pid for process in psutil.process_iter()}, abandoned_memory()

    def is_clean() -> bool:
        new = [process for process in psutil.process_iter(["cmdline"]) if process.pid not in processes]
        tritons = [process for process in new if any("triton" in part for part in process.info["cmdline"] or ()) and is_ours(process)]
        return not tritons and abandoned_memory() <= memory

    yield
    wait_until(is_clean, "every Triton process and its shared memory gone")
