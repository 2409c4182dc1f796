"""An analysis that is still under way while what it has found out is rendered already."""

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

import numpy as np

from orchestrator.errors import RenderCancelled
from orchestrator.inference.detector import FaceDetector
from orchestrator.media.foreseen import foresee_frames
from orchestrator.media.probe import VideoInfo
from orchestrator.media.reader import FrameIndex
from orchestrator.pipeline.analyse import Analysis, Enough, Extent, KnownFaces, conclude, detect, times_of
from orchestrator.pipeline.concurrency import JOIN_S
from orchestrator.pipeline.detect import WINDOWS_IN_FLIGHT, FoundFrame
from orchestrator.pipeline.progress import OnProgress, StageClock
from orchestrator.pipeline.watch import POLL_S, Watch
from preprocess.cuts import changes_before_end
from preprocess.face_track import Followed, TrackCollector
from preprocess.pose import Presence
from preprocess.sparse import in_whole_windows, max_window_frames
from preprocess.speaker import LargestFace
from preprocess.track import TrackedFrame, Tracker

_CHOICES = (LargestFace(),)


class Unforeseen(Exception):
    """The video has other frames than its packets say: what was rendered by these is of no use."""


class UnderWay:
    """The analysis of a video, in a thread of its own, for the one speaker that is found by himself. A context manager: leaving it ends the thread.

    The frames and their times are foreseen from the packets, so that the output can be laid out at once; every frame that is decoded is
    compared with what was foreseen. A frame's faces are published when they can no longer change, and are those that `analyse` finds, to the bit.
    """

    @staticmethod
    def begin(info: VideoInfo, detector: FaceDetector, extent: Extent, known: KnownFaces, watch: Watch) -> "UnderWay | None":
        """Return an analysis that is to be begun; None where the frames cannot be foreseen, or are too few for anything to be gained."""
        # A window behind the last frame that is shown is analysed, too: see `find_faces`.
        rate = float(info.frame_rate)
        behind_s = None if extent.until_s is None else extent.until_s + 2 * max_window_frames(rate) / info.frame_rate + 1
        foreseen = foresee_frames(info, behind_s, watch.tick)
        if foreseen is None:
            return None
        pts, is_whole = foreseen.pts, foreseen.is_whole
        is_enough = Enough(extent, 0, info)
        reached = next((index for index, stamp in enumerate(pts.tolist()) if is_enough(index, stamp)), None)
        if reached is None and not is_whole:
            return None
        if reached is not None:
            seen_count = in_whole_windows(reached + 1, rate)
            if seen_count > len(pts) and not is_whole:
                return None
            is_whole = is_whole and len(pts) < seen_count
            pts = pts[:seen_count]
        shown_count = extent.frame_count(pts, is_whole, info)
        if shown_count is None or shown_count <= Tracker(rate, _CHOICES).look_ahead:
            return None
        is_key = np.zeros(shown_count, np.bool_)
        is_whole = is_whole and shown_count == len(pts)
        index = FrameIndex(pts[:shown_count], is_key)
        return UnderWay(info, detector, extent, known, watch, Analysis(index, times_of(index.pts, info), is_whole, (), (), 0))

    def __init__(self, info: VideoInfo, detector: FaceDetector, extent: Extent, known: KnownFaces, watch: Watch, foreseen: Analysis) -> None:
        self._info, self._detector, self._extent, self._known, self._watch = info, detector, extent, known, watch
        self._foreseen = foreseen
        self._tracker = Tracker(float(info.frame_rate), _CHOICES)
        self._collected = TrackCollector(len(foreseen.index), len(_CHOICES))
        self._changed = threading.Condition()
        self._leave = threading.Event()
        self._found_count = self._final_count = 0
        self._wanted = 0
        """The last frame that was asked for."""
        self._has_face = self._is_unforeseen = False
        self._result: Analysis | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="analyse", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        if kind is not None:
            self._watch.stop(RenderCancelled("The render has ended."))  # else the thread waits for a Triton that hangs
        with self._changed:
            self._leave.set()
            self._changed.notify_all()
        self._thread.join(JOIN_S)

    @property
    def foreseen(self) -> Analysis:
        """The frames and their times, without faces."""
        return self._foreseen

    def first_face(self, on_progress: OnProgress | None) -> Analysis:
        """Wait for the first frame with a face, with progress, and return what rendering can begin with.

        Raises:
            NoFaceFound: there is none in the whole video; and whatever else `analyse` raises.
            Unforeseen: the video has other frames than were foreseen.
        """
        clock = StageClock("analyse", len(self._foreseen.index), on_progress)
        while not self._wait_until(lambda: self._has_face or self._is_ended or self._is_unforeseen, once=True):
            clock.advance(self._found_count)
        clock.advance(self._found_count)
        if self._is_ended or self._is_unforeseen:
            return self.confirm()
        return Analysis(self._foreseen.index, self._foreseen.times, self._foreseen.is_whole, self._collected.tracks(), (), 0, wait_for=self._wait_for)

    def whole(self) -> Analysis:
        """Wait for the end of the analysis and return it. See `analyse` for what it raises."""
        self._ask_for(len(self._foreseen.index))
        self._wait_until(lambda: self._is_ended)
        if self._error is not None:
            raise self._error
        assert self._result is not None
        return self._result

    @property
    def faces_found(self) -> int | None:
        """How many frames show the speaker's face; None until that is known."""
        return None if self._result is None else self._result.faces_found

    def confirm(self) -> Analysis:
        """Wait for the end of the analysis and return it.

        Raises:
            Unforeseen: it differs from what rendering began with.
        """
        analysis = self.whole()
        if self._is_unforeseen:
            raise Unforeseen
        return analysis

    @property
    def _is_ended(self) -> bool:
        return self._result is not None or self._error is not None

    def _wait_for(self, index: int) -> None:
        self._ask_for(index)
        self._wait_until(lambda: index < self._final_count or self._is_unforeseen or self._error is not None)
        if self._is_unforeseen:
            raise Unforeseen
        if index >= self._final_count and self._error is not None:
            raise self._error

    def _ask_for(self, index: int) -> None:
        if index > self._wanted:
            with self._changed:
                self._wanted = index
                self._changed.notify_all()

    def _wait_until(self, is_so: Callable[[], bool], *, once: bool = False) -> bool:
        while True:
            with self._changed:
                if self._changed.wait_for(is_so, POLL_S):
                    return True
            self._watch.check()
            if once:
                return False

    def _run(self) -> None:
        try:
            enough = Enough(self._extent, 0, self._info)
            detections = detect(self._info, self._detector, enough, self._take, self._tick, self._watch, self._keep_pace, is_beside=True)
            self._known.store(detections)
            self._is_unforeseen |= self._final_count < len(self._foreseen.index)
            followed = None if self._is_unforeseen else Followed(self._collected.tracks(), tuple(self._collected.cuts), ())
            result = conclude(self._info, detections, self._extent, _CHOICES, followed=followed, watch=self._watch)
            self._is_unforeseen |= not np.array_equal(result.index.pts, self._foreseen.index.pts) or result.is_whole != self._foreseen.is_whole
            with self._changed:
                self._result = result
                self._changed.notify_all()
        except BaseException as exc:  # noqa: BLE001 (raised again where it is waited for)
            with self._changed:
                self._error = exc
                self._changed.notify_all()

    def _keep_pace(self, index: int, is_left: Callable[[], bool]) -> None:
        def may_go_on() -> bool:
            is_waited_for = not self._has_face or self._final_count <= self._wanted
            return is_waited_for or index < self._enough_for(self._wanted) or self._is_unforeseen or self._leave.is_set() or is_left()

        self._wait_until(may_go_on)

    def _enough_for(self, wanted: int) -> int:
        """Return how many frames are decoded when a frame is asked for: those that make it final, and the windows that come meanwhile.

        Going on would take the processor from rendering, whose first segment somebody waits for.
        """
        count, rate = wanted + 1 + self._tracker.usual_look_ahead, float(self._info.frame_rate)
        for _ in range(WINDOWS_IN_FLIGHT):
            count = in_whole_windows(count, rate) + 1
        return in_whole_windows(count, rate)

    def _tick(self) -> None:
        if self._leave.is_set():
            raise RenderCancelled("The render has ended.")
        self._watch.tick()

    def _take(self, number: int, frame: FoundFrame) -> None:
        """Follow the speaker into the next frame, and publish what is final."""
        self._tick()
        self._found_count = number + 1
        index, count = self._foreseen.index, len(self._foreseen.index)
        if number >= count or self._is_unforeseen:
            return
        if frame.pts != index.pts[number]:
            with self._changed:
                self._is_unforeseen = True
                self._changed.notify_all()
            return
        index.is_key[number] = frame.is_key
        final = [*self._tracker.push(frame.faces, changes_before_end(frame.changes, count - number))]
        if number + 1 == count:
            final += self._tracker.finish()
        self._publish(final)

    def _publish(self, frames: list[TrackedFrame]) -> None:
        for frame in frames:
            self._collected.add(frame)
        if frames:
            with self._changed:
                self._has_face = self._has_face or any(face.presence == Presence.EDITABLE for frame in frames for face in frame.faces)
                self._final_count = frames[-1].index + 1
                self._changed.notify_all()
