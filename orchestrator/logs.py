"""How the service logs: lines for people or JSON objects for programs, with the ids of the job and the request and without anything of its user."""

import json
import logging
import sys
from contextvars import ContextVar
from typing import Literal

_EXTRA = ("job", "code", "owner", "received", "sent")
"""What log records of this project may carry besides their message."""

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""The id of the request that is answered, also on the threads that work for it; every line that is logged meanwhile carries it."""


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, and the job and the request where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as JSON."""
        entry = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S") + f".{int(record.msecs):03}",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **{name: getattr(record, name) for name in _EXTRA if hasattr(record, name)},
        }
        if (request := request_id.get()) is not None:
            entry["request_id"] = request
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False)


class TextFormatter(logging.Formatter):
    """A line for people."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (logging's name)
        """Return the line, with the ids of the job and of the request behind the message; an exception's trace comes below it."""
        line = super().formatMessage(record)
        if hasattr(record, "job"):
            line += f" [job {record.job}]"
        return line if (request := request_id.get()) is None else f"{line} [request {request}]"


def set_up_logging(log_format: Literal["text", "json"]) -> None:
    """Log to standard error: this project from INFO on, libraries from WARNING on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("lipsync").setLevel(logging.INFO)
