"""Inputs that a request is about to use: no job names them yet, and the deletion of another job with the same input must not take them away."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Holds:
    """Which files are held, and by how many requests."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: Counter[Path] = Counter()

    @contextmanager
    def holding(self) -> Iterator["Hold"]:
        """Give what a request can hold files with, and let go of them at its end."""
        hold = Hold(self)
        try:
            yield hold
        finally:
            self._release(hold.paths)

    def held(self) -> set[Path]:
        """Return the files that requests hold."""
        with self._lock:
            return set(self._held)

    def add(self, path: Path) -> None:
        """Hold a file once more."""
        with self._lock:
            self._held[path] += 1

    def _release(self, paths: list[Path]) -> None:
        with self._lock:
            self._held.subtract(paths)
            self._held += Counter()  # forget those that nobody holds


class Hold:
    """One request's files."""

    def __init__(self, holds: Holds) -> None:
        self._holds = holds
        self.paths: list[Path] = []

    def add(self, path: Path) -> None:
        """Hold a file."""
        self.paths.append(path)
        self._holds.add(path)
