"""API keys and signed links."""

import os
import time
from pathlib import Path

import pytest

from orchestrator.api.keys import ApiKeys, LinkSigner
from orchestrator.errors import InvalidOption, StorageError

KEY_A, KEY_B = "a" * 16, "key:with:colons-and-more"


def test_keys_from_setting_and_file_name_their_owners(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# comment\n\nbob : {KEY_B}\n")
    keys = ApiKeys.load(f" anna:{KEY_A} ,", file)
    assert keys
    assert [keys.owner_of(key) for key in (KEY_A, KEY_B, "a" * 15, "a" * 17, "", None, "\udcff")] == ["anna", "bob", None, None, None, None, None]


def test_without_keys_everybody_is_let_in() -> None:
    keys = ApiKeys.load("")
    assert not keys
    assert keys.owner_of(None) == keys.owner_of("anything") == ""


@pytest.mark.parametrize("text", ["nokey", f":{KEY_A}", "anna:short", f"anna:{KEY_A},bob:{KEY_A}", "anna:" + "é" * 20])
def test_malformed_keys_are_refused_with_a_sentence_that_does_not_show_them(text: str) -> None:
    with pytest.raises(InvalidOption, match=r"\.$") as caught:
        ApiKeys.load(text)
    assert KEY_A not in str(caught.value)


def test_file_of_keys_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidOption, match="LIPSYNC_API_KEYS_FILE"):
        ApiKeys.load("", tmp_path / "nowhere")


@pytest.mark.parametrize("text", [" ", ",", " , ,"])
def test_setting_for_keys_without_one_lets_nobody_in(text: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidOption, match="LIPSYNC_API_KEYS has no key"):
        ApiKeys.load(text)
    file = tmp_path / "keys"
    file.write_text("\n# none yet\n")
    with pytest.raises(InvalidOption, match=r"LIPSYNC_API_KEYS_FILE, .*keys, has no key"):
        ApiKeys.load(f"anna:{KEY_A}", file)


def signed(signer: LinkSigner, scope: str, valid_s: float = 60) -> dict[str, str]:
    return dict(part.split("=") for part in signer.query(scope, valid_s).split("&"))


def test_signature_lets_in_to_its_path_and_below_and_nowhere_else() -> None:
    signer = LinkSigner(b"secret")
    query = signed(signer, "/v2/generate/1")
    assert signer.allows("/v2/generate/1", **query)
    assert signer.allows("/v2/generate/1/segments/3.mp4", **query)
    for path in ("/v2/generate/12", "/v2/generate", "/v2/generate/2/result", "/v2", "/"):
        assert not signer.allows(path, **query)


def test_signature_ends_and_cannot_be_altered() -> None:
    signer = LinkSigner(b"secret")
    query = signed(signer, "/a/b")
    assert not signer.allows("/a/b", str(int(query["expires"]) + 1), query["signature"])
    assert not signer.allows("/a/b", query["expires"], query["signature"][::-1])
    assert not LinkSigner(b"other").allows("/a/b", **query)
    assert not signer.allows("/a/b", **signed(signer, "/a/b", valid_s=-1))
    for expires in ("", "x", "-1", "9" * 30, "²"):
        assert not signer.allows("/a/b", expires, query["signature"])
    assert not signer.allows("/a/b", query["expires"], "é")


def test_secret_outlives_a_restart_and_is_nobody_elses(tmp_path: Path) -> None:
    query = signed(LinkSigner.load(tmp_path), "/a")
    assert LinkSigner.load(tmp_path).allows("/a", **query)
    assert int(query["expires"]) - time.time() < 61
    assert [(path.name, path.stat().st_mode & 0o777) for path in tmp_path.iterdir()] == [("link.secret", 0o600)]


def test_service_that_died_while_it_made_the_secret_starts_again(tmp_path: Path) -> None:
    """In a container it has the same process id every time."""
    (tmp_path / f".link.secret.{os.getpid()}").touch()
    query = signed(LinkSigner.load(tmp_path), "/a")
    assert LinkSigner.load(tmp_path).allows("/a", **query)


def test_secret_that_a_power_cut_emptied_signs_nothing(tmp_path: Path) -> None:
    (tmp_path / "link.secret").touch()
    with pytest.raises(StorageError, match="delete it"):
        LinkSigner.load(tmp_path)
