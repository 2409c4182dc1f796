"""What jobs need from the layer above, which knows HTTP and the interfaces."""

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from orchestrator.errors import UrlRefused
from orchestrator.jobs.model import JobView


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
    raise UrlRefused("This service does not fetch URLs; give the file itself.")


def _no_post(url: str, body: bytes, headers: Mapping[str, str]) -> int:
    raise UrlRefused("This service sends no webhooks.")


def _plain_body(view: JobView) -> bytes:
    return view.model_dump_json().encode()


@dataclass(frozen=True, slots=True)
class Hooks:
    """The layer above."""

    fetch: Fetch = _no_fetch
    post: Post = _no_post
    webhook_body: Callable[[JobView], bytes] = _plain_body
    """The body announced at a job's end, in the shape of its interface."""
    deliver: Callable[[JobView, Path], None] = lambda view, result: None
    """Brings the result where its interface wants it, before the job counts as completed. It may be called again for the same job. A `StorageError`
    is tried again like any other; after the last attempt the job counts as completed all the same, and its result is kept."""
    kept: Callable[[], Set[Path]] = frozenset
    """Files under `inputs/` that something other than a job (an asset) needs now."""
    clean_up: Callable[[], None] = lambda: None
    """Called before files that nothing needs are deleted, so that the layer above forgets what is over."""
