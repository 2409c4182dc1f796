"""Webhooks: how they are signed, and how patiently they are delivered."""

import hashlib
import hmac

SIGNATURE_HEADER = "Sync-Signature"

RETRY_DELAYS_S = (1, 2, 4, 8, 15, 30, 60, 120, 300, 600, 1800, *([3600] * 24))
"""Time before each further delivery, s: a receiver may be away for a day."""


def sign(body: bytes, secret: str, at: int) -> str:
    """Return the signature of a body sent at a time (seconds since 1970): HMAC-SHA256 over the time, a full stop and the body."""
    digest = hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={at},v1={digest}"


def headers(body: bytes, secret: str, at: int) -> dict[str, str]:
    """Return the headers of a delivery; without a secret it is not signed."""
    plain = {"Content-Type": "application/json"}
    return {**plain, SIGNATURE_HEADER: sign(body, secret, at)} if secret else plain


def retry_delay_s(failed_deliveries: int) -> float | None:
    """Return how long to wait after a number of failed deliveries; None gives up."""
    return RETRY_DELAYS_S[failed_deliveries - 1] if failed_deliveries <= len(RETRY_DELAYS_S) else None
