"""What a process tells about itself: counters, health, and log lines that a journal can search."""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass, field
from json import dumps


@dataclass(slots=True)
class Counters:
    """The five figures that every component keeps; ``reasons`` splits ``dropped`` and ``errors`` by cause.

    ``lag_s`` is the age of the oldest thing still waiting.
    """

    received: int = 0
    sent: int = 0
    dropped: int = 0
    errors: int = 0
    lag_s: float = 0.0
    reasons: dict[str, int] = field(default_factory=dict)

    def drop(self, reason: str, count: int = 1) -> None:
        """Something was not passed on."""
        self.dropped += count
        self.reasons[reason] = self.reasons.get(reason, 0) + count

    def fail(self, reason: str, count: int = 1) -> None:
        """Something went wrong and will be tried again."""
        self.errors += count
        self.reasons[reason] = self.reasons.get(reason, 0) + count


@dataclass(slots=True)
class Health:
    """What is wrong at this moment, by part; nothing is good news. Each change is logged once."""

    log: logging.Logger
    faults: dict[str, str] = field(default_factory=dict)

    @property
    def good(self) -> bool:
        return not self.faults

    def lost(self, part: str, why: str) -> None:
        """``part`` stopped working."""
        if part not in self.faults:
            self.log.warning("%s lost: %s", part, why)
        self.faults[part] = why

    def back(self, part: str) -> None:
        """``part`` works; said only if it had been lost."""
        if self.faults.pop(part, None) is not None:
            self.log.info("%s back", part)


class _Line(logging.Formatter):
    """One line per event; a traceback is folded into it so that a journal keeps it together."""

    def format(self, record: logging.LogRecord) -> str:
        return super().format(record).replace("\n", " | ")


class _JsonLine(logging.Formatter):
    """One JSON object per event."""

    def format(self, record: logging.LogRecord) -> str:
        event = {
            "time": round(record.created, 3),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            event["trace"] = self.formatException(record.exc_info)
        return dumps(event)


def configure_logging(json: bool = False, level: int = logging.INFO) -> None:
    """Send every event as one line to stderr. Without a terminal the journal adds the time itself."""
    handler = logging.StreamHandler(sys.stderr)
    text = "%(levelname)s %(name)s: %(message)s"
    plain = f"%(asctime)s {text}" if sys.stderr.isatty() else text
    handler.setFormatter(_JsonLine() if json else _Line(plain))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
