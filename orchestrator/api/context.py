"""What the routes of every interface share."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import ParamSpec, TypeVar

import anyio
import anyio.to_thread
from starlette.requests import HTTPConnection

from orchestrator.api.guard import Entrance, request_state
from orchestrator.api.holds import Hold, Holds
from orchestrator.api.uploads import StoredFile, Uploads
from orchestrator.jobs.model import JobView
from orchestrator.jobs.records import Asset, Batch, Records, Upload
from orchestrator.jobs.service import JobService
from orchestrator.media.fetch import fetch
from orchestrator.media.limits import MediaLimits
from orchestrator.media.reach import FetchPolicy

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class Context:
    """The service as the routes see it."""

    service: JobService
    uploads: Uploads
    holds: Holds
    assets: Records[Asset]
    asset_uploads: Records[Upload]
    batches: Records[Batch]
    entrance: Entrance
    fetch_policy: FetchPolicy
    media_limits: MediaLimits
    model: str
    """Name of the installed lip model."""
    model_aliases: frozenset[str]
    """Further names that stand for it."""
    retention_s: float
    easy_data: Path
    """Folder shared with HeyGem clients."""
    public_url: str | None
    """URL under which clients reach the service; None takes the request's."""
    local_url: str
    """URL of the service on this host, for what is sent without a request."""
    served_by: str
    """Tells this service from others that share its jobs, also after a restart."""
    stopping: threading.Event = field(default_factory=threading.Event)
    """Set once the service was told to stop; endless answers end then."""
    workers: anyio.CapacityLimiter = field(default_factory=lambda: anyio.CapacityLimiter(32))
    """Threads for short work: the jobs' database, probing, files."""
    fetchers: anyio.CapacityLimiter = field(default_factory=lambda: anyio.CapacityLimiter(8))
    """Threads that wait for servers elsewhere."""
    watchers: anyio.CapacityLimiter = field(default_factory=lambda: anyio.CapacityLimiter(64))
    """Threads that wait for a job to change."""

    async def run(self, function: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
        """Run short blocking work on a thread."""
        return await anyio.to_thread.run_sync(lambda: function(*arguments, **options), limiter=self.workers)

    def base_url(self, request: HTTPConnection | None = None) -> str:
        """Return the URL that links in answers begin with, without a slash at its end."""
        if self.public_url:
            return self.public_url.rstrip("/")
        return str(request.base_url).rstrip("/") if request is not None else self.local_url

    def owner(self, request: HTTPConnection) -> str | None:
        """Return whose jobs and assets a request may see; None for everybody's."""
        if not self.entrance.keys or request_state(request.scope, "signed"):
            return None
        return str(request_state(request.scope, "owner", ""))

    def owner_name(self, request: HTTPConnection) -> str:
        """Return the name that what a request creates belongs to."""
        return str(request_state(request.scope, "owner", ""))

    async def job(self, job_id: str, request: HTTPConnection) -> JobView:
        """Return a job that the request may see.

        Raises:
            UnknownJob: there is none with this id; one of another owner counts as not there.
        """
        view = await self.run(self.service.get, job_id, self.owner(request))
        request.scope.setdefault("state", {})["job"] = view.id  # for the log
        return view

    def fetched(self, url: str, hold: Hold, is_gone: Callable[[], bool] = lambda: False) -> StoredFile:
        """Fetch a file into the storage and hold it. Blocks, on a thread of `fetchers`; ends when the client `is_gone` or the service shuts down.

        Raises:
            RenderError: see `fetch` and `Storage`.
        """
        with self.service.storage.incoming("download", self.fetch_policy.max_bytes) as sink:
            sink.name = fetch(url, sink.write, self.fetch_policy, lambda: is_gone() or self.stopping.is_set()) or sink.name
            path = sink.commit(hold.add)
        return StoredFile(path, sink.name, path.stat().st_size)

    def signed_url(self, path: str, scope: str, base_url: str, valid_s: float | None = None) -> str:
        """Return a link that works without an API key for some time, s; None: for as long as results are kept."""
        if not self.entrance.keys:
            return f"{base_url}{path}"
        return f"{base_url}{path}?{self.entrance.signer.query(scope, self.retention_s if valid_s is None else valid_s)}"
