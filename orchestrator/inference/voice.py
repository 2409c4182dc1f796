"""The `voice_activity` role: when in a track somebody speaks."""

from collections.abc import Callable, Iterable
from concurrent.futures import Future

import numpy as np

from orchestrator.inference.client import TritonClient
from orchestrator.inference.contract import VOICE_ACTIVITY, ModelDescription, describe_model, mismatch, whole_numbers
from orchestrator.inference.requests import sent_ahead
from orchestrator.inference.windows import Counted, Samples, cut_windows

WINDOWS_IN_FLIGHT = 4
"""Requests of one window each that are sent ahead. Batches of eight, two ahead, took as long and 13 MB more (600 s of speech on 2 cores)."""


class VoiceActivity:
    """The `voice_activity` role.

    A track goes through the model in windows that lie at fixed places and overlap by the model's warm-up, so the answer depends on the track
    alone: not on how it was read, nor on which windows shared a batch.
    """

    def __init__(self, client: TritonClient) -> None:
        """Check the model on Triton.

        Raises:
            InferenceUnavailable, ContractMismatch: see `describe_model`; also parameters that do not belong to its shapes.
        """
        self._client = client
        self.description: ModelDescription = describe_model(client, VOICE_ACTIVITY)
        names = ("sample_rate_hz", "chunk_samples", "context_samples", "warm_up_chunks")
        self.sample_rate_hz, self.chunk_samples, self._context_samples, self._warm_up = whole_numbers(self.description, *names)
        self._chunks = self.description.sizes["T"]
        self._window_samples = self.description.sizes["A"]
        fits = self._window_samples == self._chunks * self.chunk_samples + self._context_samples and self.sample_rate_hz > 0
        if not fits or not 0 <= self._warm_up < self._chunks:
            wanted = f"{self._chunks} * chunk_samples + context_samples = {self._window_samples} and warm_up_chunks below {self._chunks}"
            found = ", ".join(f"{name} {self.description.parameters[name]}" for name in names)
            raise mismatch(VOICE_ACTIVITY, wanted, found)

    def listen(self, pieces: Iterable[Samples], wait: Callable[[Future[Samples]], Samples] = Future.result) -> Samples:
        """Return the probability of speech, 0..1, of every chunk of a track.

        Args:
            pieces: the track's mono samples at `sample_rate_hz`, (n,) each; a few windows are held.
            wait: waits for an answer; what it raises ends it.

        Raises:
            InferenceError: Triton failed.
        """
        track = Counted(pieces)
        voice: list[Samples] = []
        overlap = self._context_samples + self._warm_up * self.chunk_samples
        windows = cut_windows(track, self._window_samples, overlap, self._context_samples)
        requests = (self._client.infer(VOICE_ACTIVITY, {"samples": window[None]}, "voice") for window in windows)
        for answer in sent_ahead(requests, WINDOWS_IN_FLIGHT):
            [row] = wait(answer)
            voice.append(row[self._warm_up :] if voice else row)
        return np.concatenate(voice)[: -(-track.sample_count // self.chunk_samples)] if voice else np.empty(0, np.float32)
