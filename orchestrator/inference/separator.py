"""The `voice_separator` role: the voice of a track, without the music and the noise around it."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future

from orchestrator.inference.client import TritonClient
from orchestrator.inference.contract import VOICE_SEPARATOR, ModelDescription, describe_model, mismatch, whole_numbers
from orchestrator.inference.requests import sent_ahead
from orchestrator.inference.windows import Counted, Samples, cut_windows


class VoiceSeparator:
    """The `voice_separator` role.

    A track goes through the model in chunks at fixed places, each with what lies around it, so the answer depends on the track alone.
    """

    def __init__(self, client: TritonClient) -> None:
        """Check the model on Triton.

        Raises:
            InferenceUnavailable, ContractMismatch: see `describe_model`; also parameters that do not belong to its shapes.
        """
        self._client = client
        self.description: ModelDescription = describe_model(client, VOICE_SEPARATOR)
        names = ("sample_rate_hz", "context_samples")
        self.sample_rate_hz, self._context = whole_numbers(self.description, *names)
        self._heard, self._answered = self.description.sizes["A"], self.description.sizes["V"]
        if self.sample_rate_hz <= 0 or self._heard != self._answered + 2 * self._context:
            found = ", ".join(f"{name} {self.description.parameters[name]}" for name in names)
            raise mismatch(VOICE_SEPARATOR, f"{self._answered} + 2 * context_samples = {self._heard} and a rate", found)

    def separate(self, pieces: Iterable[Samples], wait: Callable[[Future[Samples]], Samples] = Future.result) -> Iterator[Samples]:
        """Yield the voice of a track in pieces, as many samples as the track has.

        Args:
            pieces: the track's mono samples at `sample_rate_hz`, (n,) each; a few chunks are held.
            wait: waits for an answer; what it raises ends it.

        Raises:
            InferenceError: Triton failed.
        """
        track, given = Counted(pieces), 0
        chunks = cut_windows(track, self._heard, 2 * self._context, self._context, self._context)
        for answer in sent_ahead(self._client.infer(VOICE_SEPARATOR, {"samples": chunk[None]}, "voice") for chunk in chunks):
            voice = wait(answer)[0][: track.sample_count - given]
            given += len(voice)
            if len(voice):
                yield voice
