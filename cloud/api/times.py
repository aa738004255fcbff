"""Times and durations as people and programs write them in a request."""

from __future__ import annotations

import re
from datetime import datetime

from wire.errors import BadData
from wire.settings import duration

NS = 1_000_000_000
END = 1 << 63
"""The first nanosecond that no time stamp reaches, in 2262."""


def span(text: str) -> int:
    """Nanoseconds in ``90 s``, ``10m``, ``2 h``, ``1 d`` (``m`` is minutes); raises BadData("duration")."""
    try:
        seconds = duration(re.sub(r"(?<=[\d\s])m\s*\Z", "min", text))
    except BadData:
        raise BadData("duration", f"{text!r} is not a duration, such as 90 s, 10m or 2 h") from None
    if seconds * NS >= END:
        raise BadData("duration", f"{text!r} is longer than time stamps reach")
    return round(seconds * NS)


def moment(text: str, now: int) -> int:
    """Ns UTC of ``now``, ``10m`` (that long ago), ISO 8601 with a zone, or ns; raises BadData("time")."""
    if text == "now":
        return now
    if re.fullmatch(r"[0-9]{1,19}", text):
        at = int(text)
    else:
        try:
            at = now - span(text)
        except BadData:
            at = _iso(text)
    if not 0 <= at < END:
        raise BadData("time", f"{text!r} does not lie between 1970 and 2262")
    return at


def _iso(text: str) -> int:
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        raise BadData("time", f"{text!r} is not a time, such as 10m, 2026-05-01T12:00:00Z or ns") from None
    if parsed.tzinfo is None:
        raise BadData("time", f"{text!r} has no zone (add Z for UTC)")
    seconds = int(parsed.timestamp())
    return seconds * NS + parsed.microsecond * 1000
