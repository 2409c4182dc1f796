"""Frames with what follows them in the same shot."""

from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, Protocol, TypeVar


class InShot(Protocol):
    """A frame that knows whether a shot begins with it."""

    @property
    def starts_shot(self) -> bool:
        """Whether it follows a cut, or is the first frame."""
        ...


Frame = TypeVar("Frame", bound=InShot)


class LookAhead(Generic[Frame]):
    """Yields each frame together with up to `count - 1` frames behind it, as soon as these are known or their shot has ended.

    A frame that `is_sure` has no need of them: it comes with those that are known.
    """

    def __init__(self, count: int, is_sure: Callable[[Frame], bool] = lambda frame: False) -> None:
        self._count = count
        self._is_sure = is_sure
        self._frames: deque[Frame] = deque()

    def push(self, frame: Frame) -> Iterator[list[Frame]]:
        """Take the next frame; yield the windows that are complete now, the frame that each is for first."""
        if frame.starts_shot:
            yield from self.finish()
        self._frames.append(frame)
        while self._frames and (len(self._frames) == self._count or self._is_sure(self._frames[0])):
            yield list(self._frames)
            self._frames.popleft()

    def finish(self) -> Iterator[list[Frame]]:
        """Yield what is left: the windows that the end cuts short."""
        while self._frames:
            yield list(self._frames)
            self._frames.popleft()
