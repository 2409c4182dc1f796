"""What may be fetched, as the settings say it."""

import pytest

from orchestrator.errors import InvalidOption, UrlRefused
from orchestrator.fetching import fetch_policy
from orchestrator.media.reach import check_url
from orchestrator.settings import Settings


@pytest.mark.parametrize(
    ("hosts", "url"),
    [
        ("a.example.org, *.example.com", "https://cdn.example.com/v.mp4"),
        ("b\u00fccher.example", "https://b\u00fccher.example/v.mp4"),
        ("*.b\u00fccher.example", "https://cdn.xn--bcher-kva.example/v.mp4"),
        ("example.org.", "https://example.org/v.mp4"),
        ("[2606:4700::1]", "https://[2606:4700::1]/v.mp4"),
    ],
)
def test_host_is_known_however_it_is_written(hosts: str, url: str) -> None:
    policy = fetch_policy(Settings(fetch_hosts=hosts))
    check_url(url, policy)
    with pytest.raises(UrlRefused, match="LIPSYNC_FETCH_HOSTS"):
        check_url("https://elsewhere.example/v.mp4", policy)


@pytest.mark.parametrize("text", ["https://cdn.example.org", "cdn.example.org:443", "example.org/videos", "a.org b.org", "a.org;b.org", "a..org"])
def test_entry_that_no_host_is_named_like_is_refused(text: str) -> None:
    with pytest.raises(InvalidOption, match=r"LIPSYNC_FETCH_HOSTS has .* write names alone"):
        fetch_policy(Settings(fetch_hosts=f"cdn.example.com,{text}"))
