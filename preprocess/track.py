"""One speaker through a video: detections linked into tracks, the speaker chosen, short gaps closed, the points smoothed."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

MIN_START_SCORE = 0.5
"""Detector score a track has to reach at least once."""

MIN_OVERLAP = 0.2
"""Intersection over union of boxes in neighbouring frames that makes them the same face."""

MAX_GAP_S = 0.4
"""Longest time without a detection that is bridged by interpolation (a hand, a blur), s. What is longer passes through unedited."""

SMOOTHING_S = 0.08
"""Standard deviation of the Gaussian over time that takes out the detector's jitter, s. It looks both ways, so nothing lags."""

MAX_AREA_RATIO = 4.0
"""How much smaller a later track's face may be and still count as the speaker come back."""

MIN_EYE_DISTANCE_PX = 8.0
"""Distance between the eyes below which a face is too small to edit."""


@dataclass(frozen=True, slots=True)
class FaceTrack:
    """One person's landmarks over the frames of a video."""

    landmarks5: NDArray[np.float32]
    """(N, 5, 2), px of the coded frame, smoothed; zeros where `is_present` is false."""
    outline: NDArray[np.float32]
    """(N, M, 2), the lower face's outline, as `landmarks5`; M is 0 where no landmarks were found."""
    is_present: NDArray[np.bool_]
    """(N,) whether the face can be rendered in that frame."""

    def __len__(self) -> int:
        return len(self.is_present)


def choose_speaker(detections: Sequence[NDArray[np.float32]], frame_rate: float) -> FaceTrack:
    """Link detections over time and return the speaker: the face that covers the largest area over the video.

    Args:
        detections: for each frame (n, 15 + 2 M) float32 rows x1 y1 x2 y2 score, five points and M points of an outline, px of the frame.
        frame_rate: frames a second.

    Returns:
        The speaker's track; `is_present` is false everywhere where no face was found.
    """
    max_gap = max(1, round(MAX_GAP_S * frame_rate))
    tracks = [rows for rows in _link(detections, max_gap) if max(row[4] for row in rows.values()) >= MIN_START_SCORE]
    count = len(detections)
    columns = max((rows.shape[1] for rows in detections), default=15) - 5
    landmarks = np.zeros((count, columns // 2, 2), np.float32)
    is_present = np.zeros(count, np.bool_)
    tracks.sort(key=_covered_area, reverse=True)
    for rows in tracks:
        frames = np.array(sorted(rows))
        # A person who leaves and comes back is a new track: it joins the speaker's if it is about as large and the speaker is not there.
        if is_present[frames[0] : frames[-1] + 1].any() or MAX_AREA_RATIO * _mean_area(rows) < _mean_area(tracks[0]):
            continue
        points = np.stack([rows[int(frame)][5:] for frame in frames])
        for part in np.split(np.arange(len(frames)), np.flatnonzero(np.diff(frames) > max_gap) + 1):
            span = np.arange(frames[part[0]], frames[part[-1]] + 1)
            filled = np.stack([np.interp(span, frames[part], column) for column in points[part].T], axis=1)
            landmarks[span] = smooth(filled, SMOOTHING_S * frame_rate).reshape(len(span), -1, 2)
            is_present[span] = True
    eye_distance = np.linalg.norm(landmarks[:, 1] - landmarks[:, 0], axis=1)
    is_present &= eye_distance >= MIN_EYE_DISTANCE_PX
    landmarks[~is_present] = 0.0
    return FaceTrack(landmarks[:, :5], landmarks[:, 5:], is_present)


def smooth(values: NDArray[np.float64], sigma: float) -> NDArray[np.float32]:
    """Smooth (n, c) values over n with a Gaussian of `sigma` frames; the ends are reflected about their own value, so they stay in place."""
    median = values.copy()
    if len(values) >= 3:
        median[1:-1] = np.median(np.stack([values[:-2], values[1:-1], values[2:]]), axis=0)  # a single wild frame leaves no trace
    reach = min(len(values) - 1, int(np.ceil(3 * sigma)))
    if reach < 1:
        return median.astype(np.float32)
    head = 2 * median[0] - median[reach:0:-1]
    tail = 2 * median[-1] - median[-2 : -reach - 2 : -1]
    kernel = cv2.getGaussianKernel(2 * reach + 1, sigma, cv2.CV_64F)[:, 0]
    padded = np.concatenate([head, median, tail])
    return np.stack([np.convolve(column, kernel, mode="valid") for column in padded.T], axis=1).astype(np.float32)


def _link(detections: Sequence[NDArray[np.float32]], max_gap: int) -> list[dict[int, NDArray[np.float32]]]:
    """Return tracks as frame number -> row. Each detection goes to the open track it overlaps most."""
    tracks: list[dict[int, NDArray[np.float32]]] = []
    open_tracks: list[dict[int, NDArray[np.float32]]] = []
    for frame, rows in enumerate(detections):
        open_tracks = [track for track in open_tracks if frame - next(reversed(track)) <= max_gap]
        if not len(rows):
            continue
        boxes = np.array([track[next(reversed(track))][:4] for track in open_tracks], np.float32).reshape(-1, 4)
        overlap = box_overlap(boxes, rows[:, :4])
        free_tracks, free_rows = set(range(len(open_tracks))), set(range(len(rows)))
        for flat in np.argsort(-overlap, axis=None):
            i, j = divmod(int(flat), len(rows))
            if overlap[i, j] < MIN_OVERLAP:
                break
            if i in free_tracks and j in free_rows:
                open_tracks[i][frame] = rows[j]
                free_tracks.discard(i)
                free_rows.discard(j)
        for j in sorted(free_rows):
            track = {frame: rows[j]}
            tracks.append(track)
            open_tracks.append(track)
    return tracks


def box_overlap(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the (n, m) intersection over union of (n, 4) and (m, 4) boxes xyxy."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    common = np.prod(np.maximum(high - low, 0), axis=2)
    area_a, area_b = np.prod(a[:, 2:4] - a[:, :2], axis=1), np.prod(b[:, 2:4] - b[:, :2], axis=1)
    return np.asarray(common / np.maximum(area_a[:, None] + area_b[None] - common, 1e-6), np.float32)


def _covered_area(rows: dict[int, NDArray[np.float32]]) -> float:
    return float(sum((row[2] - row[0]) * (row[3] - row[1]) * row[4] for row in rows.values()))


def _mean_area(rows: dict[int, NDArray[np.float32]]) -> float:
    return float(np.mean([(row[2] - row[0]) * (row[3] - row[1]) for row in rows.values()]))
