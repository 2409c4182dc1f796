"""Speakers by their faces: of a reference image, or chosen in one frame, and which tracks of a video are that person's."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from orchestrator.errors import InvalidOption, NoFaceFound, SpeakerNotFound
from orchestrator.inference.detector import FaceDetector
from orchestrator.inference.embedder import FaceEmbedder
from orchestrator.media.probe import VideoInfo, probe_video
from orchestrator.media.reader import FrameIndex, VideoReader, plane_views, stream_colour
from orchestrator.pipeline.tracks import Detections
from orchestrator.pipeline.watch import Watch
from preprocess.align import frame_to_crop_matrix, warp
from preprocess.orientation import UPRIGHT
from preprocess.recognition import Sighting, mean_direction, sightings, tracks_of_people
from preprocess.smoothing import SeenFrame
from preprocess.speaker import MIN_START_SCORE, FaceAt, KnownTracks, SpeakerChoice, face_at
from preprocess.track import SeenFrames
from preprocess.yuv import crop_face

MIN_LEAD = 2.0
"""How many times larger than any other face in the image the person's has to be."""


def read_reference(path: Path) -> NDArray[np.uint8]:
    """Return the first picture of a file as it is shown, (h, w, 3) RGB.

    Raises:
        InputError: the file is missing, or holds no picture.
    """
    info = probe_video(path)
    with VideoReader(info) as reader:
        frame = next(reader.decode_from_start(), None)
    if frame is None:
        raise NoFaceFound(f"{path.name} shows no picture; give a picture of the speaker.")
    picture = frame.scaled_rgb(info.working_size_wh)
    return np.ascontiguousarray(info.orientation.shown(picture))


@dataclass(frozen=True, slots=True)
class Recogniser:
    """Knows the speakers by their faces wherever a video shows them."""

    embedder: FaceEmbedder
    portrait: NDArray[np.float64] | None
    """(D,), of length 1: who is looked for in place of the first choice; None where all are chosen in the video itself."""

    @staticmethod
    def of(picture: NDArray[np.uint8] | None, detector: FaceDetector, embedder: FaceEmbedder) -> "Recogniser":
        """Find the person of a picture, (h, w, 3) RGB, where there is one.

        Raises:
            NoFaceFound: it shows no face.
            InvalidOption: it shows several, and none that is much larger than the others.
            InferenceError: Triton failed.
        """
        return Recogniser(embedder, None if picture is None else _portrait(picture, detector, embedder))

    def know(self, choices: Sequence[SpeakerChoice], info: VideoInfo, detections: Detections, watch: Watch) -> Sequence[SpeakerChoice]:
        """Return the choices, with the tracks of a video that are theirs in place of a picture or of points.

        A face that was chosen by a point is known in other shots by the best frames of its track. Where a point shows no face, the choices stay
        as they are.

        Raises:
            SpeakerNotFound: the person of the picture is not in the video.
            InferenceError: Triton failed.
        """
        frames = _seen_frames(detections, float(info.frame_rate), watch)
        chosen = [] if self.portrait is not None else _chosen_tracks(choices, frames)
        if None in chosen:
            return choices
        found = sightings(frames, {number for number in chosen if number is not None})
        directions = self._directions(found, info, detections, watch)
        people = [directions[number] for number in chosen if number is not None] if self.portrait is None else [self.portrait]
        tracks = tracks_of_people(found, directions, people, self.embedder.min_similarity)
        if self.portrait is not None and not tracks[0]:
            raise _not_found(info, [float(direction @ self.portrait) for direction in directions.values()], self.embedder.min_similarity)
        return [KnownTracks(one) for one in tracks]

    def _directions(self, found: Mapping[int, Sighting], info: VideoInfo, detections: Detections, watch: Watch) -> Mapping[int, NDArray[np.float64]]:
        """Return for each track where the embeddings of its best frames point, on average."""
        wanted = sorted(((index, number, face) for number, one in found.items() for index, face in one.best), key=lambda one: one[:2])
        vectors: dict[int, list[NDArray[np.float32]]] = {}
        colour, size_px = stream_colour(info), self.embedder.size_px
        order = np.array(sorted({index for index, _, _ in wanted}), np.int64)
        with VideoReader(info, watch.tick) as reader:
            for picture in reader.decode_order(FrameIndex(detections.pts, detections.is_key), order) if len(order) else ():
                here = [(number, face) for index, number, face in wanted if index == picture.index]
                planes = plane_views(picture.picture, colour)
                crops = [crop_face(planes, frame_to_crop_matrix(face.points[:5], self.embedder.template5), size_px).image for _, face in here]
                for (number, _), vector in zip(here, self.embedder.embed(crops), strict=True):
                    vectors.setdefault(number, []).append(vector)
        return {number: mean_direction(np.stack(its_own)) for number, its_own in vectors.items()}


def _portrait(picture: NDArray[np.uint8], detector: FaceDetector, embedder: FaceEmbedder) -> NDArray[np.float64]:
    height, width = picture.shape[:2]
    box = detector.letterbox((width, height), UPRIGHT)
    scaled = cv2.resize(picture, box.scaled_coded_wh, interpolation=cv2.INTER_AREA)
    rows = detector.detect(box.place(np.asarray(scaled, np.uint8))[None]).result()[0]
    rows = rows[rows[:, 4] >= MIN_START_SCORE]
    if not len(rows):
        raise NoFaceFound("The picture of the speaker shows no face; give one in which it is seen from the front.")
    areas = np.prod(rows[:, 2:4] - rows[:, :2], axis=1)
    order = np.argsort(-areas, kind="stable")
    if len(rows) > 1 and areas[order[0]] < MIN_LEAD * areas[order[1]]:
        raise InvalidOption(f"The picture of the speaker shows {len(rows)} faces; cut it so that his is the only one, or much the largest.")
    points = box.points_to_frame(rows[order[0], 5:15].reshape(5, 2))
    crop = warp(picture, frame_to_crop_matrix(points, embedder.template5), (embedder.size_px, embedder.size_px), cv2.BORDER_REPLICATE)
    return mean_direction(embedder.embed([crop]))


def _seen_frames(detections: Detections, frame_rate: float, watch: Watch) -> list[SeenFrame]:
    seen = SeenFrames(frame_rate)
    frames: list[SeenFrame] = []
    for rows, changes in zip(detections.by_frame(), detections.changes, strict=True):
        frames.extend(seen.push(rows, changes))
        watch.tick()
    return [*frames, *seen.finish()]


def _chosen_tracks(choices: Sequence[SpeakerChoice], frames: Sequence[SeenFrame]) -> list[int | None]:
    """Return the track at each choice's point; None where no face is there."""
    points = [choice for choice in choices if isinstance(choice, FaceAt)]
    faces = [face_at(frames[point.frame], point) if point.frame < len(frames) else None for point in points]
    return [None if face is None else face.track for face in faces]


def _not_found(info: VideoInfo, alike: Sequence[float], min_similarity: float) -> SpeakerNotFound:
    best = f"the most similar face has {max(alike):.2f}, and {min_similarity} is needed" if alike else "it shows no face"
    return SpeakerNotFound(f"The person in the picture is not in {info.path.name}: {best}. Give another picture of him, or a point on his face.")
