"""Real inputs for a model out of a video: what a render would send it."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from orchestrator.errors import NoFaceFound
from orchestrator.inference.client import TritonClient
from orchestrator.inference.contract import ModelDescription
from orchestrator.inference.detector import FaceDetector
from orchestrator.inference.golden import golden_inputs
from orchestrator.media.probe import probe_video
from orchestrator.media.reader import VideoReader
from preprocess.align import CROP_TEMPLATES, crop_template, frame_to_crop_matrix, warp
from preprocess.letterbox import Letterbox

MAX_SIDE_PX = 1280
"""Frames are scaled down to this before faces are cut out of them."""


def video_samples(client: TritonClient, description: ModelDescription, video: Path, count: int) -> dict[str, NDArray[Any]]:
    """Return (n, ...) inputs for a model, n at most `count`, from the first frames of a video that show a face.

    `image` is the letterboxed frame, `face` the largest face aligned by the model's own template; what a video has nothing for is taken from
    `golden_inputs`.

    Raises:
        InputError: the video cannot be read, or shows no face in its first frames.
        InferenceError: Triton failed.
    """
    info = probe_video(video)
    detector = FaceDetector(client)
    box = detector.letterbox(info.working_size_wh, info.orientation)
    large_px = min(MAX_SIDE_PX, max(info.working_size_wh))
    large = Letterbox.fit(info.working_size_wh, info.orientation, large_px)
    size_px = description.input_dims["face"][0] if "face" in description.input_dims else 0
    images, crops = [], []
    with VideoReader(info) as reader:
        for frame in reader.decode_from_start():
            image = box.place(frame.scaled_rgb(box.scaled_coded_wh))
            best = detector.detect(image[None]).result()[0][0]
            if best[4] > 0.5:
                images.append(image)
                if size_px:
                    points = best[5:].reshape(5, 2) * np.float32(large.size_px / box.size_px)
                    crops.append(_crop(large.place(frame.scaled_rgb(large.scaled_coded_wh)), points, description, size_px))
            if len(images) == count or frame.index >= 8 * count:
                break
    if not images:
        raise NoFaceFound(f"The first frames of {video.name} show no face; give a video that begins with one.")
    samples = golden_inputs(description, len(images))
    if "image" in samples:
        samples["image"] = np.stack(images)
    if crops:
        samples["face"] = np.stack(crops)
    return samples


def _crop(picture: NDArray[np.uint8], points: NDArray[np.float32], description: ModelDescription, size_px: int) -> NDArray[np.uint8]:
    name = description.parameters.get("crop_template", "")
    template = crop_template(name if name in CROP_TEMPLATES else "ffhq_512", size_px)
    return warp(picture, frame_to_crop_matrix(points, template), (size_px, size_px), cv2.BORDER_REPLICATE)
