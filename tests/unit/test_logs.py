"""Logs for people and for programs."""

import json
import logging

from orchestrator.logs import JsonFormatter, TextFormatter


def record(**extra: object) -> logging.LogRecord:
    made = logging.LogRecord("lipsync.jobs", logging.WARNING, __file__, 1, "attempt %d failed", (2,), None)
    made.__dict__.update(extra)
    return made


def test_json_is_one_object_a_line_with_the_job() -> None:
    line = JsonFormatter().format(record(job="1234", code="stalled", secret="x"))
    entry = json.loads(line)
    assert "\n" not in line
    assert {name: entry[name] for name in ("level", "logger", "message", "job", "code")} == {
        "level": "warning", "logger": "lipsync.jobs", "message": "attempt 2 failed", "job": "1234", "code": "stalled",
    }  # fmt: skip
    assert "secret" not in entry
    assert "job" not in json.loads(JsonFormatter().format(record()))


def test_text_names_the_job() -> None:
    assert TextFormatter().format(record(job="1234")).endswith("WARNING lipsync.jobs: attempt 2 failed [job 1234]")
