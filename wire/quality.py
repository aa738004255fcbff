"""Quality of a reading: good, uncertain or bad, always with a reason, as one small integer.

0-63 good, 64-127 uncertain, 128-255 bad. A bad reading has a reason *instead of* a value.
"""

from __future__ import annotations

from enum import IntEnum


class Quality(IntEnum):
    """The reasons; the number is what travels."""

    GOOD = 0
    UNCERTAIN = 64
    UNCERTAIN_CLOCK = 65
    """The source's stamp lay outside the declared skew; the edge's stamp was used."""
    UNCERTAIN_AHEAD = 66
    """Stamped more than 2 s ahead of the gateway's clock: stored, never fused."""
    UNCERTAIN_SENSOR = 67
    """The device itself called the value uncertain."""
    UNCERTAIN_SUBSTITUTE = 68
    """The device reports a substitute, last-usable or initial value."""
    BAD = 128
    BAD_TIMEOUT = 129
    BAD_CONNECTION = 130
    BAD_DEVICE = 131
    """The device refused or reported a failure (Modbus exception 1, 3, 4 and above; OPC UA Bad*)."""
    BAD_ADDRESS = 132
    """No such register or node (Modbus exception 2, OPC UA BadNodeId*)."""
    BAD_REPLY = 133
    """Wrong function code, short or garbled reply."""
    BAD_TYPE = 134
    """Not of the declared type (text for a number, true for a number)."""
    BAD_NOT_FINITE = 135
    """NaN or an infinity."""
    BAD_RANGE = 136
    """Outside the point's declared range."""
    BAD_STALE = 137
    """Nothing new from the source for longer than allowed."""

    @property
    def label(self) -> str:
        """``good``, ``uncertain/clock``, ``bad/timeout``: the form people read."""
        grade, _, reason = self.name.lower().partition("_")
        return f"{grade}/{reason.replace('_', '-')}" if reason else grade


FIRST_UNCERTAIN = 64
FIRST_BAD = 128


def is_bad(code: int) -> bool:
    """True if the reading carries no value."""
    return code >= FIRST_BAD


def label(code: int) -> str:
    """Readable form of any code, also of one this version does not know."""
    try:
        return Quality(code).label
    except ValueError:
        grade = "good" if code < FIRST_UNCERTAIN else "uncertain" if code < FIRST_BAD else "bad"
        return f"{grade}/{code}"
