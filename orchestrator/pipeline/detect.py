"""Faces on every frame of a video, frame by frame, from a detector that is asked about as few frames as it takes."""

import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from orchestrator.errors import RenderCancelled, passed_to
from orchestrator.inference.detector import FaceDetector
from orchestrator.inference.requests import Joined
from orchestrator.media.probe import VideoInfo
from orchestrator.media.reader import VideoReader
from orchestrator.media.times import MISSING_PTS
from orchestrator.pipeline.concurrency import in_flight, prefetch
from orchestrator.pipeline.watch import Watch
from preprocess.cuts import ChangeMeter, change, thumbnail
from preprocess.letterbox import Letterbox
from preprocess.sparse import Rows, SparseWindow, step_frames, window_lengths

WINDOWS_IN_FLIGHT = 2
"""Windows whose detections are awaited at a time: one computing, one queued in Triton."""

Pace = Callable[[int, Callable[[], bool]], None]
"""Called with the number of each frame that is about to be looked at, in the thread that decodes: returns when it may be, or when the second
argument says that nobody waits for it any more."""


@dataclass(frozen=True, slots=True)
class FoundFrame:
    """A frame of the source, and what can be seen in it."""

    pts: int
    is_key: bool
    faces: Rows
    """(n, 15 + 2 M) x1 y1 x2 y2 score, five points and the lower face's outline, px of the coded frame."""
    changes: NDArray[np.float32]
    """(REACH,), see `ChangeMeter`."""


@dataclass(frozen=True, slots=True)
class _Picture:
    pts: int
    is_key: bool
    thumb: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class _Window:
    pictures: list[_Picture]
    images: list[NDArray[np.uint8]]
    """(H, W, 3) RGB of each picture, letterboxed; none when the faces are found, long before the window is done with."""


def find_faces(
    reader: VideoReader,
    info: VideoInfo,
    detector: FaceDetector,
    is_enough: Callable[[int, int], bool],
    watch: Watch,
    pace: Pace,
) -> Generator[FoundFrame]:
    """Yield the first frames of a video, in order; a few more than asked for where there are more, to whole windows.

    So the faces of a frame do not depend on how many frames are looked at.

    Args:
        reader: of the video.
        info: of the video.
        detector: who finds them.
        is_enough: told the number and time stamp of each frame in turn; tells whether no more are needed.
        watch: ends the search when it is told to stop.
        pace: how far ahead frames are looked at; as far as there is room where nothing is said.

    Raises:
        InferenceError: Triton failed.
        RenderError: the watch says that the work must not go on.
    """
    box = detector.letterbox(info.working_size_wh, info.orientation)
    rate = float(info.frame_rate)
    meter = ChangeMeter()
    waiting: list[tuple[_Picture, Rows]] = []
    left = threading.Event()
    windows = prefetch(_windows(reader, box, window_lengths(rate), is_enough, pace, left.is_set), 1, "analyse-decode", watch)
    searches = in_flight(lambda window: _Search(window, detector, step_frames(rate), watch.tick), windows, WINDOWS_IN_FLIGHT, watch)
    with closing(windows), closing(searches) as found, ExitStack() as leaving:
        leaving.callback(left.set)
        for window, faces in found:
            for picture, rows in zip(window.pictures, faces, strict=True):
                waiting.append((picture, _to_frame(rows, box)))
                for changes in meter.push(picture.thumb):
                    known, its_rows = waiting.pop(0)
                    yield FoundFrame(known.pts, known.is_key, its_rows, changes)
    for (known, its_rows), changes in zip(waiting, meter.finish(), strict=True):
        yield FoundFrame(known.pts, known.is_key, its_rows, changes)


def _windows(
    reader: VideoReader,
    box: Letterbox,
    lengths: Iterator[int],
    is_enough: Callable[[int, int], bool],
    pace: Pace,
    is_left: Callable[[], bool],
) -> Generator[_Window]:
    window, count = _Window([], []), next(lengths)
    enough = False
    for frame in reader.decode_from_start():
        pace(frame.index, is_left)
        if is_left():
            return  # the reader is about to be closed; a busy host may take longer for a whole window than that is waited for
        scaled = frame.scaled_rgb(box.scaled_coded_wh)
        pts = MISSING_PTS if frame.picture.pts is None else frame.picture.pts
        window.pictures.append(_Picture(pts, frame.is_key, thumbnail(scaled)))
        window.images.append(box.place(scaled))
        enough = is_enough(frame.index, pts) or enough
        if len(window.images) == count:
            yield window
            window, count = _Window([], []), next(lengths)
            if enough:
                return
    if window.images:
        yield window


class _Search(Future[list[Rows]]):
    """The faces of a window, (n, 15 + 2 M) rows a frame, px of the letterboxed picture. Nothing here waits: a round begins when one has ended."""

    def __init__(self, window: _Window, detector: FaceDetector, step: int, tick: Callable[[], None]) -> None:
        super().__init__()
        self.set_running_or_notify_cancel()
        self._images = window.images
        self._detector = detector
        self._tick = tick
        changes = [0.0, *(change(one.thumb, other.thumb) for one, other in pairwise(window.pictures))]
        self._window = SparseWindow(changes, step)
        self._round: Future[list[NDArray[np.float32]]] | None = None
        self._is_cancelled = False
        self._ask()

    def cancel(self) -> bool:
        """Ask for the search to be given up; its error then says so."""
        self._is_cancelled = True
        if (asked := self._round) is not None:
            asked.cancel()
        return False

    def _ask(self) -> None:
        images = [self._images[index] for index in self._window.wanted]
        size = self._detector.batch_size
        self._round = Joined([self._detector.detect(np.stack(images[start : start + size])) for start in range(0, len(images), size)])
        self._round.add_done_callback(self._go_on)

    def _go_on(self, answered: Future[list[NDArray[np.float32]]]) -> None:
        self._round = None  # which refers to this search: no cycle is left behind
        with passed_to(self):
            batches = answered.result()
            self._tick()  # a window takes several rounds; one that failed has finished nothing
            self._window.put([rows[rows[:, 4] > 0] for batch in batches for rows in batch])
            if self._is_cancelled:
                raise RenderCancelled("The search for faces was given up.")
            if self._window.wanted:
                self._ask()
            else:
                self._images.clear()
                self.set_result(self._window.rows())


def _to_frame(rows: Rows, box: Letterbox) -> Rows:
    """Return one picture's detections, (n, 15 + 2 M), in px of the coded frame."""
    corners = box.points_to_frame(rows[:, :4].reshape(-1, 2, 2))
    points = box.points_to_frame(rows[:, 5:].reshape(len(rows), (rows.shape[1] - 5) // 2, 2))  # -1 cannot be told where no row is real
    # Turning the frame may swap which corner is the upper left one.
    boxes = np.concatenate([corners.min(1), corners.max(1)], axis=1)
    return np.concatenate([boxes, rows[:, 4:5], points.reshape(len(rows), rows.shape[1] - 5)], axis=1).astype(np.float32)
