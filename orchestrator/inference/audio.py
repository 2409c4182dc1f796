"""The `audio_encoder` role: a network that turns speech into the features another lip model reads (Whisper, WeNet)."""

from concurrent.futures import Future
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from orchestrator.inference.client import TritonClient
from orchestrator.inference.contract import AUDIO_ENCODER, ModelDescription, describe_model, mismatch
from orchestrator.inference.requests import sent_ahead
from preprocess.speech_features import HOP, SAMPLE_RATE_HZ, WHISPER_SEGMENT_COLUMNS, kaldi_fbank, whisper_log_mel


class AudioEncoder:
    """The `audio_encoder` role."""

    def __init__(self, client: TritonClient) -> None:
        """Check the model on Triton.

        Raises:
            InferenceUnavailable, ContractMismatch: see `describe_model`; also a front end or rate that cannot be used.
        """
        self._client = client
        self.description: ModelDescription = describe_model(client, AUDIO_ENCODER)
        parameters, dims = self.description.parameters, self.description.input_dims["audio"]
        self.front_end = parameters["audio_frontend"]
        front_ends = {"whisper_log_mel": (80, WHISPER_SEGMENT_COLUMNS), "wenet_fbank": (dims[0], 80)}
        if front_ends.get(self.front_end) != dims:
            found = f"{self.front_end!r} with {list(dims)}"
            raise mismatch(AUDIO_ENCODER, f"audio_frontend one of {', '.join(front_ends)} with its input shape", found)
        try:
            self.features_per_s = Fraction(parameters["features_per_s"])
            self.context = int(parameters.get("context_features", "0"))
        except ValueError:
            raise mismatch(AUDIO_ENCODER, "features_per_s and context_features numbers", str(dict(parameters))) from None
        self.feature_count, self.feature_size = self.description.sizes["F"], self.description.sizes["D"]
        if self.features_per_s <= 0 or not 0 <= 2 * self.context < self.feature_count:
            raise mismatch(AUDIO_ENCODER, "features_per_s above 0 and context_features below half a segment", str(dict(parameters)))

    def encode(self, waveform: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the (T, D) features of a whole track, (n,) mono 16 kHz samples.

        A track longer than one segment is encoded in segments; where they overlap, each gives its middle.

        Raises:
            InferenceError: Triton failed.
        """
        total = max(1, -(-len(waveform) * self.features_per_s.numerator // (SAMPLE_RATE_HZ * self.features_per_s.denominator)))
        step = self.feature_count - 2 * self.context
        parts: list[NDArray[np.float32]] = []
        requests = ((start, self._request(self._segment(waveform, max(0, start - self.context)))) for start in range(0, total, step))
        for start, future in sent_ahead(requests):
            skipped = min(start, self.context)
            parts.append(future.result()[0][skipped : skipped + step])
        return np.concatenate(parts)[:total]

    def _segment(self, waveform: NDArray[np.float32], first_feature: int) -> NDArray[np.float32]:
        """Return the encoder's input, its first feature being number `first_feature` of the track."""
        begin = int(first_feature * SAMPLE_RATE_HZ / self.features_per_s)
        if self.front_end == "whisper_log_mel":
            return whisper_log_mel(waveform[begin : begin + WHISPER_SEGMENT_COLUMNS * HOP])
        columns = self.description.input_dims["audio"][0]
        samples = waveform[begin : begin + (columns - 1) * HOP + 400]
        return kaldi_fbank(np.pad(samples, (0, (columns - 1) * HOP + 400 - len(samples))))

    def _request(self, segment: NDArray[np.float32]) -> Future[NDArray[np.float32]]:
        return self._client.infer(AUDIO_ENCODER, {"audio": segment[None]}, "features")
