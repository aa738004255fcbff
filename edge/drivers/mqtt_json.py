"""JSON payloads of MQTT devices: where a value sits, what its stamp means, and how a write is worded."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from types import MappingProxyType
from typing import Literal

from wire.errors import BadData

MAX_PAYLOAD_BYTES = 1 << 16
PATH_PATTERN = r"^[^.\[\]\s]+(\.[^.\[\]\s]+|\[\d+\])*$"
"""``value``, ``position.x``, ``axes[2].speed``."""

TimeUnit = Literal["ns", "us", "ms", "s", "iso"]
MISSING = object()
"""Stands for a value that a payload does not hold."""

_STEP = re.compile(r"([^.\[\]]+)|\[(\d+)\]")
_NANOSECONDS = MappingProxyType({"ns": 1, "us": 1_000, "ms": 1_000_000, "s": 1_000_000_000})
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def parse(payload: bytes) -> object:
    """The payload as Python values; BadData("oversize" | "malformed") if it is none."""
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise BadData("oversize", f"{len(payload)} bytes, at most {MAX_PAYLOAD_BYTES}")
    try:
        content: object = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise BadData("malformed", str(error)) from None
    return content


def pick(content: object, path: str | None) -> object:
    """The value at a path, the whole content without one, or ``MISSING``."""
    for step in _steps(path) if path else ():
        holds = step in content if isinstance(content, dict) else isinstance(content, list) and _is_index(step, content)
        if not holds:
            return MISSING
        content = content[step]  # type: ignore[index]
    return content


def stamp(value: object, unit: TimeUnit) -> int:
    """Nanoseconds UTC, 0 if the value is no time."""
    if unit == "iso":
        return _iso(value) if isinstance(value, str) else 0
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1 << 63:
        return 0
    scaled = round(value * _NANOSECONDS[unit])
    return scaled if scaled < 1 << 63 else 0


def compose(value: float, kind: str, path: str | None) -> bytes:
    """The payload of a write: the bare value, or objects around it along the path."""
    content: object = value
    if kind == "bool":
        content = value == 1.0
    elif kind == "int":
        content = round(value)
    for step in reversed(_steps(path) if path else ()):
        content = {step: content}
    return json.dumps(content).encode()


def _iso(text: str) -> int:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return 0
    aware = time if time.tzinfo else time.replace(tzinfo=UTC)
    return max(0, (aware - _EPOCH) // timedelta(microseconds=1) * 1000)


def _is_index(step: str | int, content: Sequence[object]) -> bool:
    return isinstance(step, int) and step < len(content)


@cache
def _steps(path: str) -> tuple[str | int, ...]:
    return tuple(int(index) if index else key for key, index in _STEP.findall(path))
