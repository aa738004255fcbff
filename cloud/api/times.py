"""Times and durations as people and programs write them in a request."""

from __future__ import annotations

import re
from datetime import datetime

from wire.errors import BadData
from wire.settings import duration

NS = 1_000_000_000


def span(text: str) -> int:
    """Nanoseconds in ``90 s``, ``10m``, ``2 h``, ``1 d`` (``m`` is minutes); raises BadData("duration")."""
    return round(duration(re.sub(r"(?<=[\d\s])m\s*\Z", "min", text)) * NS)


def moment(text: str, now: int) -> int:
    """Ns UTC of ``now``, ``10m`` (that long ago), ISO 8601 with a zone, or ns; raises BadData("time")."""
    if text == "now":
        return now
    if re.fullmatch(r"\d+", text):
        return int(text)
    try:
        return now - span(text)
    except BadData:
        return _iso(text)


def _iso(text: str) -> int:
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        raise BadData("time", f"{text!r} is not a time, such as 10m, 2026-05-01T12:00:00Z or ns") from None
    if parsed.tzinfo is None:
        raise BadData("time", f"{text!r} has no zone (add Z for UTC)")
    seconds = int(parsed.timestamp())
    return seconds * NS + parsed.microsecond * 1000
