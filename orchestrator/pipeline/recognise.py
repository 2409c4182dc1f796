"""A speaker by his picture: the face of a reference image, and which tracks of a video are that person's."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from orchestrator.errors import InvalidOption, NoFaceFound, SpeakerNotFound
from orchestrator.inference.embedder import FaceEmbedder
from orchestrator.inference.faces import FaceDetector
from orchestrator.media.probe import VideoInfo, probe_video
from orchestrator.media.reader import FrameIndex, VideoReader, plane_views, stream_colour
from orchestrator.pipeline.tracks import Detections
from orchestrator.pipeline.watch import Watch
from preprocess.align import frame_to_crop_matrix, warp
from preprocess.recognition import MIN_SIMILARITY, sightings, similarity, tracks_of_person
from preprocess.smoothing import SeenFrame
from preprocess.speaker import MIN_START_SCORE, KnownTracks
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
    return np.ascontiguousarray(np.rot90(picture, info.rotation_deg // 90))


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody to look for."""

    embedder: FaceEmbedder
    reference: NDArray[np.float32]
    """(D,), of length 1."""

    @staticmethod
    def of(picture: NDArray[np.uint8], detector: FaceDetector, embedder: FaceEmbedder) -> "Person":
        """Find the person of a picture, (h, w, 3) RGB.

        Raises:
            NoFaceFound: it shows no face.
            InvalidOption: it shows several, and none that is much larger than the others.
            InferenceError: Triton failed.
        """
        height, width = picture.shape[:2]
        box = detector.letterbox((width, height), 0)
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
        return Person(embedder, embedder.embed([crop])[0])

    def find(self, info: VideoInfo, detections: Detections, watch: Watch) -> KnownTracks:
        """Return the tracks of a video that are the person's.

        Raises:
            SpeakerNotFound: none is.
            InferenceError: Triton failed.
        """
        rate = float(info.frame_rate)
        seen = SeenFrames(rate)
        frames: list[SeenFrame] = []
        for rows, changes in zip(detections.by_frame(), detections.changes, strict=True):
            frames.extend(seen.push(rows, changes))
            watch.tick()
        found = sightings([*frames, *seen.finish()], rate)
        wanted = [(index, number, face) for number, one in found.items() for index, face in one.best]
        wanted.sort(key=lambda one: one[:2])
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
        alike = {number: similarity(np.stack(its_own), self.reference) for number, its_own in vectors.items()}
        person = KnownTracks(tracks_of_person(found, alike))
        if not person.tracks:
            best = f"the most similar face has {max(alike.values()):.2f}, and {MIN_SIMILARITY} is needed" if alike else "it shows no face"
            raise SpeakerNotFound(
                f"The person in the picture is not in {info.path.name}: {best}. Give another picture of him, or a point on his face."
            )
        return person
