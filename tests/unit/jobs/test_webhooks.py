"""How webhooks are signed and how patiently they are sent."""

import hashlib
import hmac

from orchestrator.jobs.webhooks import RETRY_DELAYS_S, headers, retry_delay_s, sign


def test_signature_is_what_a_receiver_computes() -> None:
    body, secret = b'{"id":"1"}', "s3cret"
    time_part, _, signature = sign(body, secret, 1700000000).partition(",v1=")
    assert time_part == "t=1700000000"
    assert signature == hmac.new(secret.encode(), b'1700000000.{"id":"1"}', hashlib.sha256).hexdigest()


def test_without_a_secret_nothing_is_signed() -> None:
    assert headers(b"{}", "", 1) == {"Content-Type": "application/json"}
    assert headers(b"{}", "s", 1)["Sync-Signature"].startswith("t=1,v1=")


def test_receiver_may_be_away_for_a_minute_and_for_a_day_but_not_for_ever() -> None:
    delays = [retry_delay_s(failed) for failed in range(1, len(RETRY_DELAYS_S) + 1)]
    assert all(delay is not None for delay in delays)
    assert sum(RETRY_DELAYS_S[:6]) <= 60, "after a minute's absence it does not wait for long"
    assert sum(RETRY_DELAYS_S) > 24 * 3600
    assert retry_delay_s(len(RETRY_DELAYS_S) + 1) is None
