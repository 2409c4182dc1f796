"""How the service logs: lines for people or JSON objects for programs, with the job's id and without anything of its user."""

import json
import logging
import sys
from typing import Literal

_EXTRA = ("job", "code", "request_id", "owner", "received", "sent")
"""What log records of this project may carry besides their message."""


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, and the job where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as JSON."""
        entry = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S") + f".{int(record.msecs):03}",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **{name: getattr(record, name) for name in _EXTRA if hasattr(record, name)},
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False)


class TextFormatter(logging.Formatter):
    """A line for people."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as a line, with the job in front of the message."""
        line = super().format(record)
        return f"{line} [job {record.job}]" if hasattr(record, "job") else line


def set_up_logging(log_format: Literal["text", "json"]) -> None:
    """Log to standard error: this project from INFO on, libraries from WARNING on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("lipsync").setLevel(logging.INFO)
