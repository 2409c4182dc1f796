"""The output on its way: finished segments in a folder, which a render that begins again goes on from.

The segments of `options.segments`, parts of the video in which somebody speaks, are others: see `pipeline.passages`.
"""

import json
import os
import shutil
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from orchestrator.files import storage_error, write_whole
from orchestrator.media.clock import OutputClock
from orchestrator.media.gops import GopReader
from orchestrator.media.output import SEGMENT_SUFFIXES, Output
from orchestrator.media.probe import VideoInfo
from orchestrator.media.rate import Spent, next_told
from orchestrator.media.reader import Picture
from orchestrator.media.segment import SegmentCopier, SegmentEncoder, SegmentFile
from orchestrator.media.sound import SpeechEncoder
from orchestrator.pipeline.parts import Part, parts_of
from orchestrator.pipeline.report import frame_ranges
from orchestrator.pipeline.watch import Watch


@dataclass(frozen=True, slots=True)
class FinishedSegment:
    """A segment that is complete on disk."""

    file: SegmentFile
    edited: tuple[tuple[int, int], ...]
    """Its frames that were edited, numbered from its own start, as ranges [first, behind the last)."""

    duration_s: Fraction
    is_copied: bool = False
    """Whether its pictures are the source's own packets."""

    @property
    def edited_count(self) -> int:
        """How many of its frames were edited."""
        return sum(stop - first for first, stop in self.edited)


class SegmentFolder:
    """A folder of finished segments: NNNNN.mp4 (or .webm, .mkv), each with NNNNN.json about it, and plan.json about what is rendered.

    A segment is there when its media file is; files are renamed into place, so a crash leaves whole ones only.
    """

    def __init__(self, path: Path, plan: Mapping[str, Any]) -> None:
        """Open the folder; segments of another plan are deleted.

        Raises:
            StorageError: it cannot be written.
        """
        self.path = path
        self._plan = path / "plan.json"
        try:
            path.mkdir(parents=True, exist_ok=True)
            if self._read(self._plan) != json.loads(json.dumps(plan)):
                shutil.rmtree(path)
                path.mkdir()
                write_whole(self._plan, json.dumps(plan))
            for partial in path.glob("*.partial"):
                partial.unlink()
        except OSError as exc:
            raise storage_error(exc, f"The folder {path} cannot be used", "check its owner and the free space") from exc
        self.finished: list[FinishedSegment] = finished_segments(path)

    @property
    def frame_count(self) -> int:
        """How many frames the finished segments have."""
        return sum(segment.file.frame_count for segment in self.finished)

    @property
    def passed_through_count(self) -> int:
        """How many frames of the finished segments are the source's own."""
        return sum(segment.file.frame_count - segment.edited_count for segment in self.finished)

    def edited(self) -> NDArray[np.bool_]:
        """Return for each frame of the finished segments whether it was edited."""
        flags = np.zeros(self.frame_count, np.bool_)
        start = 0
        for segment in self.finished:
            for first, stop in segment.edited:
                flags[start + first : start + stop] = True
            start += segment.file.frame_count
        return flags

    def copied(self) -> tuple[tuple[int, int], ...]:
        """Return which frames of the finished segments are copied, as ranges [first, behind the last)."""
        flags = [np.full(segment.file.frame_count, segment.is_copied) for segment in self.finished]
        return frame_ranges(np.concatenate(flags)) if flags else ()

    def partial(self, index: int, suffix: str) -> Path:
        """Return where to write a segment whose name will end so: a name that no other attempt uses, should one still be at it."""
        return self.path / f"{index:05}.{uuid.uuid4().hex[:8]}{suffix}.partial"

    def add(self, file: SegmentFile, edited: NDArray[np.bool_], duration_s: Fraction, *, is_copied: bool = False) -> None:
        """Put the next segment in place.

        Raises:
            StorageError: it cannot be put there.
        """
        place = self.path / f"{len(self.finished):05}{Path(file.path.stem).suffix}"
        segment = FinishedSegment(replace(file, path=place), frame_ranges(edited), duration_s, is_copied)
        try:
            about = {
                "frame_count": file.frame_count,
                "delay_frames": file.delay_frames,
                "picture_bytes": file.picture_bytes,
                "told": file.told,
                "edited": segment.edited,
                "duration_s": str(duration_s),
                "is_copied": is_copied,
            }
            write_whole(segment.file.path.with_suffix(".json"), json.dumps(about))
            with file.path.open("rb") as written:
                os.fsync(written.fileno())  # else a power cut leaves the name without the bytes
            file.path.replace(segment.file.path)
        except OSError as exc:
            raise storage_error(exc, f"Segment {len(self.finished)} cannot be put into {self.path}", "check the free space") from exc
        self.finished.append(segment)

    @staticmethod
    def _read(path: Path) -> Any:
        try:
            return json.loads(path.read_text())
        except (FileNotFoundError, ValueError):
            return None


def finished_segments(path: Path) -> list[FinishedSegment]:
    """Return the finished segments in a folder, in order; none if there is no such folder."""
    segments: list[FinishedSegment] = []
    while (file := _segment_at(path, len(segments))) is not None:
        try:
            about = json.loads(file.with_suffix(".json").read_text())
        except FileNotFoundError:
            break  # the folder is being deleted
        ranges = tuple((int(first), int(stop)) for first, stop in about["edited"])
        # What an earlier version of this program wrote lacks the bytes and what was told.
        placed = SegmentFile(file, int(about["frame_count"]), int(about["delay_frames"]), int(about.get("picture_bytes", 0)), about.get("told"))
        segments.append(FinishedSegment(placed, ranges, Fraction(about["duration_s"]), bool(about["is_copied"])))
    return segments


def _segment_at(path: Path, index: int) -> Path | None:
    files = (path / f"{index:05}{suffix}" for suffix in SEGMENT_SUFFIXES.values())
    return next((file for file in files if file.is_file()), None)


SERIAL_THREADS = 2
"""Encoder threads up to which a segment is finished before the next one begins: measured on two cores, overlapping gained nothing in time and
cost 200 MB at 1080p."""


class SegmentWriter:
    """Encodes an output's pictures from the first segment on that is not finished. A context manager.

    The encoder of a segment is emptied on a thread of its own while the next one takes pictures, so cutting costs no speed; where an encoder
    has no more than `SERIAL_THREADS`, emptying it fills the cores anyway, and two encoders at a time would only take twice the memory.
    """

    def __init__(
        self,
        folder: SegmentFolder,
        info: VideoInfo,
        clock: OutputClock,
        speech: SpeechEncoder,
        output: Output,
        frame_count: int,
        watch: Watch,
        copies: Sequence[Part] = (),
    ) -> None:
        self._folder = folder
        self._info = info
        self._clock = clock
        self._output = output
        encoding, rate = output.encoding, clock.frame_rate
        self._parts = parts_of(frame_count, encoding.segment_frame_count(rate), copies, encoding.opening_frame_count(rate))
        self._is_serial = encoding.resolved_thread_count <= SERIAL_THREADS
        self._watch = watch
        self._speech = speech
        self._encoder: SegmentEncoder | None = None
        self._edited: list[bool] = []
        self._finisher = ThreadPoolExecutor(1, "segment-finish")
        self._finishing: Future[None] | None = None
        self._started = len(folder.finished)

    def __enter__(self) -> Self:
        if first := self._folder.frame_count:
            for _ in self._speech.until(self._clock.time_s(first)):
                pass  # the encoder has to have heard what came before
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if kind is None:
                self._wait()
        finally:
            if self._encoder is not None:
                self._encoder.abandon()
            self._finisher.shutdown()  # a segment that is being finished is kept

    def write(self, picture: Picture, is_edited: bool) -> None:
        """Encode the next picture, that is the next of those that are not copied.

        Raises:
            EncodeError, StorageError: the output cannot be encoded or written.
            RenderError: the watch says that the render must not go on.
        """
        if self._encoder is None:
            self.copy_what_is_next()
            output = self._told_output()
            self._encoder = SegmentEncoder(self._path(), self._info, self._clock, output, self._speech, self._started, self._part.first)
        self._encoder.write(picture)
        self._edited.append(is_edited)
        if len(self._edited) == self._part.frame_count:
            encoder, edited = self._encoder, np.array(self._edited, np.bool_)
            self._encoder, self._edited = None, []
            self._submit(encoder, edited)

    def copy_what_is_next(self) -> None:
        """Copy the segments that are to be copied, up to the next picture that is encoded, or to the end.

        Raises:
            EncodeError, StorageError, UnreadableMedia: they cannot be read or written.
            RenderError: the watch says that the render must not go on.
        """
        while self._started < len(self._parts) and (first_pts := self._part.source_pts) is not None:
            with closing(GopReader(self._info)) as source:
                copier = SegmentCopier(self._path(), self._info, self._clock, self._output, self._speech, self._started, self._part.first, source)
                try:
                    copier.copy(first_pts, self._part.frame_count, self._watch.tick)
                except BaseException:
                    copier.abandon()
                    raise
            self._submit(copier, np.zeros(self._part.frame_count, np.bool_))

    def _told_output(self) -> Output:
        """Return the output as the next segment's encoder is to make it: with a bit rate that makes the output's average what is asked for.

        Where two segments are made at a time it goes by those before the last one, which may not be finished: the same ones every time.
        """
        encoding = self._output.encoding
        if encoding.bitrate is None:
            return self._output
        known = self._folder.finished[: self._started if self._is_serial else max(0, self._started - 1)]
        files = ((one.file, one.duration_s) for one in known if not one.is_copied)
        spent = [Spent(file.told, file.picture_bytes, duration_s) for file, duration_s in files if file.told is not None]
        return replace(self._output, encoding=replace(encoding, bitrate=next_told(encoding.bitrate, self._output.encoder.name, spent)))

    @property
    def _part(self) -> Part:
        return self._parts[self._started]

    def _path(self) -> Path:
        return self._folder.partial(self._started, self._output.segment_suffix)

    def _submit(self, maker: SegmentEncoder | SegmentCopier, edited: NDArray[np.bool_]) -> None:
        """Have a segment finished, whose pictures are all written, while the next one begins."""
        part, self._started = self._part, self._started + 1
        try:
            if self._started == len(self._parts):
                maker.write_speech(None)
            self._wait()
        except BaseException:
            maker.abandon()
            raise
        self._finishing = self._finisher.submit(self._finish, maker, part, edited)
        if self._watch.is_leaving or self._is_serial:
            self._wait()
            self._watch.checkpoint()

    def _finish(self, maker: SegmentEncoder | SegmentCopier, part: Part, edited: NDArray[np.bool_]) -> None:
        duration_s = self._clock.time_s(part.stop) - self._clock.time_s(part.first)
        try:
            self._folder.add(maker.finish(), edited, duration_s, is_copied=part.source_pts is not None)
        except BaseException:
            maker.abandon()
            raise
        self._watch.tick()

    def _wait(self) -> None:
        """Wait for the segment that is being finished: at most one is."""
        if self._finishing is not None:
            finishing, self._finishing = self._finishing, None
            self._watch.result(finishing)
