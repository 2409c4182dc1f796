"""Logs for people and for programs."""

import contextvars
import json
import logging
import sys

from orchestrator.logs import JsonFormatter, TextFormatter, request_id


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


def test_lines_that_are_logged_for_a_request_carry_its_id() -> None:
    def lines() -> tuple[str, str]:
        request_id.set("r-1")
        return TextFormatter().format(record(job="1234")), JsonFormatter().format(record())

    text, entry = contextvars.copy_context().run(lines)
    assert text.endswith("attempt 2 failed [job 1234] [request r-1]")
    assert json.loads(entry)["request_id"] == "r-1"
    assert "request" not in TextFormatter().format(record()) + JsonFormatter().format(record())


def test_trace_of_a_mistake_comes_below_the_line_and_its_ids() -> None:
    failed = record(job="1234")
    try:
        raise ValueError("a mistake")
    except ValueError:
        failed.exc_info = sys.exc_info()
    first, *trace = TextFormatter().format(failed).splitlines()
    assert first.endswith("attempt 2 failed [job 1234]")
    assert trace[-1] == "ValueError: a mistake"
