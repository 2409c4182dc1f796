"""The `face_detector` role: where the faces of a picture are, and their points."""

from concurrent.futures import Future

import numpy as np
from numpy.typing import NDArray

from orchestrator.errors import ContractMismatch
from orchestrator.inference.client import TritonClient
from orchestrator.inference.contract import FACE_DETECTOR, FACE_LANDMARKS, ModelDescription, describe_model
from orchestrator.inference.landmarks import LandmarkModel
from preprocess.letterbox import Letterbox
from preprocess.orientation import Orientation


class FaceDetector:
    """The `face_detector` role."""

    def __init__(self, client: TritonClient, refine: bool = False) -> None:
        """Check the model on Triton, and the landmark model where the detector finds no points itself.

        Args:
            client: Triton.
            refine: whether the `face_landmarks` model says where the points are, if there is one, even if the detector finds some.

        Raises:
            InferenceUnavailable, ContractMismatch: see `describe_model`.
        """
        self._client = client
        self.description: ModelDescription = describe_model(client, FACE_DETECTOR)
        self.landmarks: LandmarkModel | None = None
        """Where the points come from; None for the detector's own."""
        finds_points = self.description.parameters.get("landmarks", "5") != "none"
        if refine or not finds_points:
            if client.is_model_ready(FACE_LANDMARKS):
                self.landmarks = LandmarkModel(client)
            elif not finds_points:
                raise ContractMismatch(
                    f"The face_detector model on {client.address} finds no landmarks and there is no face_landmarks model; "
                    "install one (`lipsync models install pfld98 --from FILE`), or a detector with landmarks."
                )
        self.size_px = self.description.sizes["S"]
        self.batch_size = self.description.request_batch_size

    def letterbox(self, coded_wh: tuple[int, int], orientation: Orientation) -> Letterbox:
        """Return how a coded frame, turned upright, fits the detector's picture: no larger than it takes where the model leaves that open."""
        return Letterbox.fit(coded_wh, orientation, self.size_px, is_square=not self.description.is_open)

    def detect(self, images: NDArray[np.uint8]) -> Future[NDArray[np.float32]]:
        """Find faces in (n, H, W, 3) RGB pictures, put into `letterbox`.

        Returns:
            Future (n, K, 15 + 2 M) float32: x1 y1 x2 y2 score and five points x y, px of the picture, best first, zero rows behind; and the M
            points of the lower face's outline where there are landmarks.
        """
        faces: Future[NDArray[np.float32]] = self._client.infer(FACE_DETECTOR, {"image": images}, "faces")
        return faces if self.landmarks is None else self.landmarks.complete(images, faces)

    @property
    def descriptions(self) -> tuple[ModelDescription, ...]:
        """The models on Triton that detection uses."""
        return (self.description,) if self.landmarks is None else (self.description, self.landmarks.description)

    @property
    def identity(self) -> str:
        """What the detections depend on besides the video: see `ModelDescription.identity`."""
        return "+".join(description.identity for description in self.descriptions)
