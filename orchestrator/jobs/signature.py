"""How webhooks are signed: as sync.so signs them, so that receivers written for it check ours."""

import hashlib
import hmac
import time
from collections.abc import Mapping


def signature_headers(body: bytes, secret: str, at: float | None = None) -> Mapping[str, str]:
    """Return the header that proves that a body comes from this service; none without a secret.

    Args:
        body: as it is sent.
        secret: known to sender and receiver.
        at: time of signing, s since 1970; now if not given.
    """
    if not secret:
        return {}
    moment = int(time.time() if at is None else at)
    digest = hmac.new(secret.encode(), f"{moment}.".encode() + body, hashlib.sha256).hexdigest()
    return {"Sync-Signature": f"t={moment},v1={digest}"}
