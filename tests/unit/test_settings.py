"""Settings that were mistyped."""

import logging

import pytest

from orchestrator.settings import warn_of_unknown_variables


def test_variable_that_is_no_setting_is_named_with_the_one_that_may_be_meant(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "lipsync.settings")
    known = {"LIPSYNC_API_KEYS": "", "lipsync_port": "1", "LIPSYNC_LISTEN": "127.0.0.1:1", "LIPSYNCX": "1"}
    for name, value in {**known, "LIPSYNC_API_KEY": "a", "LIPSYNC_QQQQ": "b"}.items():
        monkeypatch.setenv(name, value)
    warn_of_unknown_variables()
    assert caplog.messages == [
        "LIPSYNC_API_KEY is no setting, and is left out; did you mean LIPSYNC_API_KEYS?",
        "LIPSYNC_QQQQ is no setting, and is left out",
    ]
