"""Files that clients send to a link they were given, and register as assets afterwards: sync.so's way to upload large ones."""

import re
import time
from collections.abc import Set
from datetime import timedelta
from pathlib import Path

from orchestrator.api.context import Context
from orchestrator.errors import MissingFile, NotReady, UnknownRecord
from orchestrator.jobs.records import Asset, Records, Upload

LINK_VALID_S = 3600
"""How long a link to send a file to is valid, s."""

REGISTER_WITHIN_S = 86_400.0
"""How long after its link was asked for a file that nobody registers is kept, s."""

_OWN_LINK = re.compile(r"/v2/assets/(?:upload/(?P<upload>[0-9a-f-]{36})|(?P<asset>[0-9a-f-]{36})/content)$")


def is_over(upload: Upload, within_s: float) -> bool:
    """Tell whether an upload's link was asked for longer ago than `within_s`."""
    return time.time() > (upload.created_at + timedelta(seconds=within_s)).timestamp()


def files_of(uploads: Records[Upload]) -> Set[Path]:
    """Return the files that have arrived and may still be registered."""
    return {upload.path for upload in uploads.all() if upload.path is not None and not is_over(upload, REGISTER_WITHIN_S)}


def forget_old(uploads: Records[Upload]) -> None:
    """Forget uploads that can be registered no more."""
    for upload in uploads.all():
        if is_over(upload, REGISTER_WITHIN_S):
            uploads.delete(upload.id)


def own_record(url: str, context: Context, owner: str | None) -> Asset | Upload | None:
    """Return the asset or the upload that a link of this service means; None for any other URL.

    An upload that is registered is an asset, of the same id.

    Raises:
        UnknownRecord: the link is an upload's at this service, and this owner has none there.
    """
    match = _OWN_LINK.search(url.partition("?")[0])
    if match is None:
        return None
    record: Asset | Upload | None = context.assets.find(match["asset"] or match["upload"], owner)
    if record is None and match["upload"]:
        record = context.asset_uploads.find(match["upload"], owner)
        if record is None and url.startswith(f"{context.base_url()}/"):
            raise UnknownRecord("There is no upload at this link, or no more; ask for another link, and send the file again.")
    return record  # where there is none, the link may be another service's of the same kind


def file_of(record: Asset | Upload, context: Context) -> Path:
    """Return the file of an asset or an upload.

    Raises:
        NotReady: it has not arrived.
        MissingFile: it is gone.
    """
    if record.path is None:
        raise NotReady("Nothing has arrived at this upload; PUT the file to its uploadUrl first.")
    if not context.service.storage.holds(record.path):
        raise MissingFile(f"The file of this {type(record).__name__.lower()} is gone; upload it again.")
    return record.path
