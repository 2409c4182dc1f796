"""What may be fetched on this host, and the inputs of `lipsync render` that are URLs."""

import ipaddress
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from orchestrator.errors import InvalidOption
from orchestrator.files import scratch_folder, storage_error
from orchestrator.jobs.storage import safe_name
from orchestrator.media.fetch import fetch
from orchestrator.media.reach import FetchPolicy, IpNetwork, is_url
from orchestrator.settings import Settings, split_list


def fetch_policy(settings: Settings) -> FetchPolicy:
    """Return what may be fetched.

    Raises:
        InvalidOption: a host or a network is malformed.
    """
    networks: list[IpNetwork] = []
    for text in split_list(settings.fetch_networks):
        try:
            networks.append(ipaddress.ip_network(text, strict=False))
        except ValueError as exc:
            raise InvalidOption(f"LIPSYNC_FETCH_NETWORKS has {text!r}, which is not a network; write it as 10.0.0.0/8.") from exc
    return FetchPolicy(
        hosts=[_host_pattern(text) for text in split_list(settings.fetch_hosts)], networks=networks, max_bytes=settings.max_upload_bytes
    )


def _host_pattern(text: str) -> str:
    """Return a host as it is compared with those of URLs: in ASCII, an IPv6 address without brackets."""
    with suppress(ValueError):
        return str(ipaddress.ip_address(text.strip("[]")))
    with suppress(UnicodeError):
        pattern = text.rstrip(".").encode("idna").decode()
        if re.fullmatch(r"[A-Za-z0-9._*-]+", pattern):
            return pattern
    raise InvalidOption(f"LIPSYNC_FETCH_HOSTS has {text!r}, which is not a host; write names alone, as in media.example.org or *.example.org.")


@contextmanager
def local_files(sources: Sequence[str], out: Path, settings: Settings) -> Iterator[list[Path]]:
    """Give the inputs of a render as files: those that are URLs are fetched into a folder beside `out` for as long as the block runs.

    Raises:
        InvalidOption: a setting about fetching is malformed.
        UrlRefused, MissingFile, FetchFailed, LimitExceeded: see `fetch`.
        StorageError: what is fetched cannot be written.
    """
    if not any(map(is_url, sources)):
        yield [Path(source) for source in sources]
        return
    policy = fetch_policy(settings)
    with scratch_folder(out, "inputs") as folder:
        yield [_fetched(source, folder / str(place), policy) if is_url(source) else Path(source) for place, source in enumerate(sources)]


def _fetched(url: str, folder: Path, policy: FetchPolicy) -> Path:
    try:
        folder.mkdir()
        with (folder / "part").open("wb") as file:
            name = fetch(url, file.write, policy)
        return (folder / "part").rename(folder / safe_name(name or "download"))
    except OSError as exc:
        raise storage_error(exc, f"No input can be fetched into {folder.parent.parent}", "free some space, or choose another output") from exc
