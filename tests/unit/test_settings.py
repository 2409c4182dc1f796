"""Settings that were mistyped, or left empty."""

import logging
from pathlib import Path

import pytest
from pydantic import ValidationError

from orchestrator.settings import Settings, warn_of_what_is_left_out


def test_variable_that_is_no_setting_is_named_with_the_one_that_may_be_meant(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "lipsync.settings")
    known = {"LIPSYNC_API_KEYS": "", "lipsync_port": "1", "LIPSYNC_LISTEN": "127.0.0.1:1", "LIPSYNCX": "1"}
    for name, value in {**known, "LIPSYNC_API_KEY": "a", "LIPSYNC_QQQQ": "b"}.items():
        monkeypatch.setenv(name, value)
    warn_of_what_is_left_out(Settings())
    assert caplog.messages == [
        "LIPSYNC_API_KEY is no setting, and is left out; did you mean LIPSYNC_API_KEYS?",
        "LIPSYNC_QQQQ is no setting, and is left out",
    ]


def test_address_of_metrics_without_its_triton_is_said_to_be_left_out(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("LIPSYNC_TRITON_METRICS", "127.0.0.1:8002")
    warn_of_what_is_left_out(Settings(triton="127.0.0.1:8001"))
    assert not caplog.messages
    warn_of_what_is_left_out(Settings())
    assert [message.partition(":")[0] for message in caplog.messages] == ["LIPSYNC_TRITON_METRICS is left out"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TRITON", "http://127.0.0.1:8001"),
        ("TRITON", "localhost"),
        ("TRITON", "127.0.0.1:99999"),
        ("TRITON_METRICS", "nonsense"),
        ("HOST_NAME", "a/b"),
        ("PUBLIC_URL", "example.org"),
        ("PUBLIC_URL", "https://[::1"),
        ("PUBLIC_URL", "https://exa mple.org"),
        ("PUBLIC_URL", "https://user:password@example.org"),
        ("PUBLIC_URL", "https://example.org/?site=1"),
        ("PUBLIC_URL", "https://example.org/#site"),
        ("DATABASE_URL", "sqlite:///jobs"),
        ("DATABASE_URL", "mysql://host/jobs"),
        ("HOST", "  "),
        ("HOST", " 127.0.0.1"),
        ("HOST", "127.0.0.1:8383"),
        ("HOST", "http://127.0.0.1"),
        ("HOST", "a..b"),
        ("HOST", "x" * 64),
        ("DATA", "  "),
        ("DATA", "/srv/lipsync "),
        ("TRITON_HOME", " /srv/triton"),
        ("MODEL_REPOSITORY", "/srv/models\t"),
        ("API_KEYS_FILE", "/srv/keys "),
        ("EASY_DATA", " "),
        ("RETENTION_S", "inf"),
        ("RETENTION_S", "1e12"),
        ("HISTORY_S", "inf"),
    ],
)
def test_value_that_no_service_could_work_with_is_refused(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"LIPSYNC_{name}", value)
    with pytest.raises(ValidationError) as caught:
        Settings()
    (error,) = caught.value.errors()
    assert error["loc"] == (name.lower(),)
    assert "must be" in error["msg"] or "should be" in error["msg"], "what to write is said, and not by a regular expression"


@pytest.mark.parametrize(
    ("name", "value"),
    [("TRITON", "[::1]:8001"), ("TRITON", "triton-server:8001"), ("HOST_NAME", "gpu-1.example.org"), ("PUBLIC_URL", "http://[::1]:8383/lips")],
)
def test_sensible_value_is_taken_as_it_is(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"LIPSYNC_{name}", value)
    assert getattr(Settings(), name.lower()) == value


@pytest.mark.parametrize(
    ("value", "host"), [("[::1]", "::1"), ("::1", "::1"), ("fe80::1%eth0", "fe80::1%eth0"), ("0.0.0.0", "0.0.0.0"), ("gpu-1.local", "gpu-1.local")]
)
def test_address_to_listen_on_is_the_address_alone(value: str, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIPSYNC_HOST", value)
    assert Settings().host == host


def test_empty_variable_is_an_unset_one(monkeypatch: pytest.MonkeyPatch) -> None:
    variables = [f"LIPSYNC_{name.upper()}" for name in Settings.model_fields]
    for variable in variables:
        monkeypatch.delenv(variable, raising=False)
    unset = Settings()
    for variable in variables:
        monkeypatch.setenv(variable, "")
    assert Settings() == unset, "an empty folder would be the one the service was started in"


def test_home_folder_is_meant_by_a_tilde(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/anna")
    monkeypatch.setenv("LIPSYNC_DATA", "~/lipsync")
    assert Settings().data == Path("/home/anna/lipsync")
    monkeypatch.setenv("LIPSYNC_DATA", "~nobody-of-this-name/lipsync")
    with pytest.raises(ValidationError, match="write the whole path"):
        Settings()
