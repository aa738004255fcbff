"""The driver seam. A driver is naive: it talks one protocol to one device and knows nothing of schedules, retries,
buffers or logging; the agent around it is patient.

A driver module exposes ``Config`` (frozen pydantic: the device's own settings), ``Address`` (frozen pydantic: the
fields of a profile point that only this protocol knows) and ``Driver(config, points, name, polled)``, where ``polled``
are the indices of the points to read. Call order: enter, then ``read``, ``fetch`` and ``write``, then leave. Never two
at once, except that a driver that pushes is read all the time, and fetched from and written to meanwhile.
Cancellation always passes through; afterwards the driver may only be left.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Protocol, Self


@dataclass(slots=True)
class Samples:
    """Columns of readings as a driver delivers them, in the device's engineering units.

    ``point`` indexes the device's point list. ``time`` is the source's own stamp in ns UTC, or 0 where the source has
    none. ``value`` is 0.0 where ``quality`` is bad; ``side`` holds typed values (text, integers beyond 2^53) by row.
    """

    point: list[int] = field(default_factory=list)
    time: list[int] = field(default_factory=list)
    value: list[float] = field(default_factory=list)
    quality: list[int] = field(default_factory=list)
    side: dict[int, int | str] = field(default_factory=dict)

    def add(self, point: int, value: float, quality: int = 0, time: int = 0) -> None:
        """Append one row."""
        self.point.append(point)
        self.time.append(time)
        self.value.append(value)
        self.quality.append(quality)


class Driver(Protocol):
    """One device over one protocol."""

    pushes: ClassVar[bool]
    """True: ``read`` waits for the device to say something. False: ``read`` asks it now, and the agent keeps time."""

    async def __aenter__(self) -> Self:
        """Connect; raises Unavailable if the device is away, ConfigError if its address can never work."""
        ...

    async def __aexit__(self, *exc: object) -> None: ...

    async def read(self) -> Samples:
        """Every point once (asked), or what has arrived (pushed). A point's failure is a bad row; a dead device is
        Unavailable; nothing at all from a driver that pushes says that the device is quiet and alive."""
        ...

    async def fetch(self, point: int) -> Samples:
        """One point, now: the read-back of a setpoint."""
        ...

    async def write(self, point: int, value: float) -> None:
        """Write one value given in the point's engineering unit; returns when the device has confirmed.

        Raises Rejected with the device's reason (``device/2``, ``BadOutOfRange``), Unavailable if it did not answer.
        """
        ...
