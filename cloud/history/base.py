"""The history seam.

Call order: enter the store, then any mix of the four verbs, then leave it. ``append`` is durable when it returns and
idempotent: the same chunk (by record identity), row (by twin and time) or event (by id) written again changes
nothing or replaces itself. Every verb raises Unavailable while the database is away and BadData for what the
database refuses for good.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, Self

import numpy as np
import numpy.typing as npt

from wire.points import PointId

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class RawChunk:
    """The readings of one record, columnar, in SI; identified by (source, epoch, seq).

    ``points`` is the schema of the record; ``point`` (R,) indexes it. ``value`` (R,) is NaN where the reading is bad
    or typed; typed values are in ``side`` by row.
    """

    source: str
    epoch: int
    seq: int
    points: Sequence[PointId]
    point: Ints
    time: Ints
    ordinal: Ints
    value: Floats
    quality: Bytes
    side: dict[int, int | str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Readings:
    """Readings of one point in time order; equal stamps are in ordinal order."""

    time: Ints
    ordinal: Ints
    value: Floats
    quality: Bytes


@dataclass(frozen=True, eq=False)
class EstimateRows:
    """Estimates of twins of one type: R rows, n states, SI. ``revision`` grows when late data rewrites a row."""

    type_hash: str
    states: tuple[str, ...]
    twin: list[str]
    time: Ints
    mean: Floats
    sigma: Floats
    revision: Ints


@dataclass(frozen=True)
class Event:
    """Something that happened to a twin or a setpoint. ``id`` makes writing it twice harmless."""

    id: str
    time: int
    kind: str
    subject: str
    text: str


@dataclass(frozen=True)
class Batch:
    """What one commit of a worker adds."""

    chunks: Sequence[RawChunk] = ()
    estimates: Sequence[EstimateRows] = ()
    events: Sequence[Event] = ()


class History(Protocol):
    """Readings, estimates and events over time. Times are ns UTC; ranges are [start, end)."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *exc: object) -> None: ...

    async def append(self, batch: Batch) -> None:
        """Write durably and idempotently."""
        ...

    async def readings(self, point: PointId, start: int, end: int) -> Readings:
        """Every stored reading of one point."""
        ...

    async def estimates(self, twin: str, start: int, end: int) -> EstimateRows:
        """Stored estimates of one twin, newest revision of each tick."""
        ...

    async def events(self, subject: str, start: int, end: int) -> list[Event]:
        """Events of one twin or setpoint path."""
        ...
