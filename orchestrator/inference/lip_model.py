"""The `lip_sync` role: crops of faces and speech in, the same faces with their mouths out."""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from fractions import Fraction
from math import prod

import numpy as np
from numpy.typing import NDArray

from orchestrator.errors import ContractMismatch
from orchestrator.inference.audio import AudioEncoder
from orchestrator.inference.client import Tensors, TritonClient
from orchestrator.inference.contract import AUDIO_ENCODER, LIP_SYNC, mismatch
from orchestrator.inference.crops import CropModel
from preprocess.mel import N_MELS, WINDOW_COLUMNS


class LipModel(CropModel):
    """The `lip_sync` role."""

    def __init__(self, client: TritonClient) -> None:
        """Check the model on Triton and read what its config says about crops and audio.

        Raises:
            InferenceUnavailable, ContractMismatch: see `CropModel`; also an unknown audio front end or paste region.
        """
        super().__init__(client, LIP_SYNC)
        parameters = self.description.parameters
        frontend = parameters["audio_frontend"]
        self.audio_dims = self.description.input_dims["audio"]
        self.encoder: AudioEncoder | None = None
        """The network whose features the model reads; None for a model that reads mel windows."""
        if frontend == "audio_encoder":
            self.encoder = self._find_encoder()
        elif frontend != "wav2lip_mel":
            raise _parameter_mismatch("audio_frontend", "wav2lip_mel or audio_encoder", frontend)
        elif self.audio_dims != (1, N_MELS, WINDOW_COLUMNS):
            raise _parameter_mismatch("audio input", f"[1, {N_MELS}, {WINDOW_COLUMNS}]", str(list(self.audio_dims)))
        self.audio_layout = parameters.get("audio_layout", "time")
        """Of a window of encoded features: `time` [features, size], or `channels` [size, features]."""
        if self.audio_layout not in ("time", "channels"):
            raise _parameter_mismatch("audio_layout", "time or channels", self.audio_layout)
        self.paste_region = _region(parameters["paste_region"])
        self.window_start_s = _number(parameters, "audio_window_start_s") or Fraction(0)
        """Where a frame's mel window begins, relative to the frame, s."""
        loud_level_db = _number(parameters, "audio_loud_level_db")
        self.loud_level_db = None if loud_level_db is None else float(loud_level_db)
        """Level loud speech is brought to before inference, dB; None leaves the track as it is."""

    def _find_encoder(self) -> AudioEncoder:
        if not self._client.is_model_ready(AUDIO_ENCODER):
            raise ContractMismatch(
                f"The lip_sync model on {self._client.address} reads features of an audio_encoder model, and there is none; install its pack again."
            )
        encoder = AudioEncoder(self._client)
        wanted = self.description.parameters.get("encoder_frontend", encoder.front_end)
        if encoder.front_end != wanted or prod(self.audio_dims) % encoder.feature_size:
            found = f"one fed with {encoder.front_end} that makes {encoder.feature_size} numbers a feature"
            raise _parameter_mismatch("audio_encoder", f"one fed with {wanted} for an audio input of {list(self.audio_dims)}", found)
        return encoder

    def generate(self, faces: Sequence[NDArray[np.uint8]], windows: Sequence[NDArray[np.float32]]) -> Future[NDArray[np.uint8]]:
        """Render mouths for n crops (S, S, 3) RGB and n windows of speech: (80, 16) mel, or (features, size) of the encoder.

        Returns:
            Future (n, S, S, 3) uint8 RGB.
        """
        audio = np.stack([window.T for window in windows] if self.audio_layout == "channels" else windows)
        inputs: Tensors = {"face": faces, "audio": audio.reshape(len(audio), *self.audio_dims)}
        return self._client.infer(LIP_SYNC, inputs, "mouth")


def _region(text: str) -> tuple[float, float, float, float]:
    try:
        x1, y1, x2, y2 = (float(part) for part in text.split(","))
    except ValueError:
        raise _parameter_mismatch("paste_region", "x1,y1,x2,y2", text) from None
    if not (0 <= x1 < x2 <= 1 and 0 <= y1 < y2 <= 1):
        raise _parameter_mismatch("paste_region", "x1 < x2 and y1 < y2 in 0..1", text)
    return x1, y1, x2, y2


def _number(parameters: Mapping[str, str], name: str) -> Fraction | None:
    try:
        return Fraction(parameters[name]) if name in parameters else None
    except ValueError:
        raise _parameter_mismatch(name, "a number", parameters[name]) from None


def _parameter_mismatch(name: str, expected: str, found: str) -> ContractMismatch:
    return mismatch(LIP_SYNC, f"{name} {expected}", repr(found))
