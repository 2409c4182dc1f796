"""The jobs of this host: accepted durably, rendered a few at a time, resumed after a crash."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from orchestrator.errors import UrlRefused
from orchestrator.inference.client import TritonClient
from orchestrator.jobs.model import JobSpec, JobState, JobView, Segment
from orchestrator.jobs.storage import Storage
from orchestrator.settings import Settings


class Fetch(Protocol):
    """Gets an http(s) URL."""

    def __call__(self, url: str, write: Callable[[bytes], object], is_cancelled: Callable[[], bool]) -> str:
        """Hand the body to `write` piece by piece and return a file name for it.

        Raises:
            UrlRefused: the URL may not be fetched.
            FetchFailed: it could not be fetched; trying again may help.
        """


class Post(Protocol):
    """Sends a webhook."""

    def __call__(self, url: str, body: bytes, headers: Mapping[str, str]) -> int:
        """Return the HTTP status.

        Raises:
            UrlRefused: the URL may not be called.
            FetchFailed: there was no answer.
        """


def _no_fetch(url: str, write: Callable[[bytes], object], is_cancelled: Callable[[], bool]) -> str:
    raise UrlRefused("This service does not fetch URLs; upload the file.")


def _no_post(url: str, body: bytes, headers: Mapping[str, str]) -> int:
    raise UrlRefused("This service sends no webhooks.")


def _plain_body(view: JobView) -> bytes:
    return view.model_dump_json().encode()


@dataclass(frozen=True, slots=True)
class Hooks:
    """What jobs need from the layer above, which knows HTTP and the interfaces."""

    fetch: Fetch = _no_fetch
    post: Post = _no_post
    webhook_body: Callable[[JobView], bytes] = _plain_body
    """The body announced at a job's end, in the shape of its interface."""
    is_kept: Callable[[Path], bool] = lambda path: False
    """Whether something other than a job (an asset) still needs a file under `inputs/`."""


class JobService:
    """Every method may be called from any thread. One service a process: DBOS is one a process."""

    def __init__(self, settings: Settings, client: TritonClient, hooks: Hooks | None = None) -> None:
        self.storage = Storage(settings.data, settings.free_space_floor_bytes)

    def start(self) -> None:
        """Take up work: what a crash interrupted first, then the queue.

        Raises:
            StorageError: the data folder cannot be used, or another service uses it.
        """
        raise NotImplementedError

    def close(self, grace_s: float) -> None:
        """Stop: no new work, running jobs finish their segment and go back to the queue, within `grace_s`."""
        raise NotImplementedError

    def submit(self, spec: JobSpec, *, idempotency_key: str | None = None) -> JobView:
        """Accept a job; it is on disk when this returns. The same key with the same spec (per owner) returns the job that is there.

        Raises:
            InvalidOption: an option has a value that the pipeline does not have.
            IdempotencyConflict: the key was used for another request.
            QueueFull: too many jobs wait.
            StorageFull: less than the free-space floor is left.
            MissingFile: an input that is not a URL is not there.
        """
        raise NotImplementedError

    def get(self, job_id: str) -> JobView:
        """Return a job.

        Raises:
            UnknownJob: there is none with this id.
        """
        raise NotImplementedError

    def find(
        self,
        *,
        interface: str | None = None,
        client_code: str | None = None,
        owner: str | None = None,
        state: JobState | None = None,
        limit: int = 50,
        before: datetime | None = None,
    ) -> list[JobView]:
        """Return jobs, newest first; `before` (a `created_at`) pages on."""
        raise NotImplementedError

    def cancel(self, job_id: str) -> JobView:
        """Cancel a job that is not finished; a finished one stays as it is. Triton and the decoder are free within 2 s.

        Raises:
            UnknownJob: there is none with this id.
        """
        raise NotImplementedError

    def delete(self, job_id: str) -> None:
        """Forget a job, cancelled first if need be: its result, and its inputs unless something else needs them.

        Raises:
            UnknownJob: there is none with this id.
        """
        raise NotImplementedError

    def result(self, job_id: str) -> Path:
        """Return the complete MP4.

        Raises:
            UnknownJob: there is none with this id.
            NotReady: it is not completed, or its retention has ended.
        """
        raise NotImplementedError

    def segments(self, job_id: str) -> list[Segment]:
        """Return the finished segments in order, for playback while rendering. They go some time after the job has finished.

        Raises:
            UnknownJob: there is none with this id.
        """
        raise NotImplementedError

    def wait_change(self, job_id: str, seen: int, timeout_s: float) -> tuple[int, JobView]:
        """Wait until the job's `revision` is not `seen`, or until the time is up; returns the revision and the job. Blocks: call it on a thread.

        Raises:
            UnknownJob: there is none with this id.
        """
        raise NotImplementedError

    @property
    def is_accepting(self) -> bool:
        """Whether a job submitted now would be taken on: started, not closing, space left."""
        raise NotImplementedError
