"""Which readings are samples of which twins' channels: pure, columnar, one point may serve many twins.

Before the bank decides, a reading may already be none of its business; `Fate` names every end a reading can have, and
each reading is counted under exactly one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cloud.bank import Events, Outcome
from cloud.columns import Schema
from cloud.history.base import Bytes, Floats, Ints, RawChunk
from cloud.twins.model import InputDef, SensorDef, Twin
from wire.points import PointId
from wire.quality import FIRST_BAD, FIRST_UNCERTAIN, Quality

UNCERTAIN_NOISE = 3.0
"""An uncertain reading counts as one with three times the sensor's standard deviation."""


class Fate(IntEnum):
    """The end of one reading. The first four are the bank's `Outcome`; with several twins the best one counts."""

    FUSED = Outcome.FUSED
    LATE = Outcome.LATE
    DUPLICATE = Outcome.DUPLICATE
    REFUSED = Outcome.REFUSED
    BAD = 4
    """Has a reason instead of a value."""
    AHEAD = 5
    """Stamped ahead of the gateway's clock."""
    TYPED = 6
    """Text or an integer too large for a float."""
    UNIT = 7
    """Every channel bound to the point expects another physical dimension."""
    UNBOUND = 8
    """No twin is bound to the point."""


class Link(NamedTuple):
    """One channel of one twin, bound to a point. ``slot`` numbers the channel among all of the worker's."""

    handle: int
    channel: int
    slot: int
    unit: str
    """SI unit that the channel expects."""


@dataclass(frozen=True, eq=False)
class Routes:
    """A schema's P points -> L links, as offsets: the links of point p are ``first[p] .. first[p + 1]``."""

    first: Ints
    handle: Ints
    channel: npt.NDArray[np.int16]
    slot: Ints
    fits: npt.NDArray[np.bool_]
    """(L,) the point's unit is the channel's."""


class Routed(NamedTuple):
    """Readings on their way to channels, one row for each reading and link (E rows), bad ones included.

    ``row`` is the reading's row in its chunk; ``good`` tells which may enter the bank.
    """

    row: Ints
    slot: Ints
    events: Events
    quality: Bytes
    good: npt.NDArray[np.bool_]


def bindings(twin: Twin) -> Iterable[tuple[int, str, PointId]]:
    """(channel index, SI unit, point) of every bound channel; an actuator's input is its read-back point."""
    definitions: tuple[InputDef | SensorDef, ...] = (*twin.type.inputs, *twin.type.sensors)
    reads = {
        item.name: twin.actuators[item.actuator].read
        for item in twin.type.inputs
        if item.actuator is not None and item.actuator in twin.actuators
    }
    for index, item in enumerate(definitions):
        point = twin.channels.get(item.name, reads.get(item.name))
        if point is not None:
            yield index, item.unit.si, point


def compile_routes(schema: Schema, links: Mapping[PointId, Sequence[Link]]) -> Routes:
    """Look every point of a schema up once, so that no reading ever has to be."""
    found = [links.get(point, ()) for point in schema.points]
    flat = [(link, link.unit == decl.unit) for decl, own in zip(schema.declared, found, strict=True) for link in own]
    return Routes(
        first=np.cumsum([0, *(len(own) for own in found)], dtype=np.int64),
        handle=np.array([link.handle for link, _ in flat], dtype=np.int64),
        channel=np.array([link.channel for link, _ in flat], dtype=np.int16),
        slot=np.array([link.slot for link, _ in flat], dtype=np.int64),
        fits=np.array([fits for _, fits in flat], dtype=np.bool_),
    )


def route(chunk: RawChunk, routes: Routes) -> Routed:
    """Repeat each reading for each channel it is a sample of."""
    begin = routes.first[chunk.point]  # (R,)
    count = routes.first[chunk.point + 1] - begin  # (R,)
    row = np.repeat(np.arange(len(chunk.point)), count)  # (E,)
    link = np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count) + np.repeat(begin, count)  # (E,)
    quality, value = chunk.quality[row], chunk.value[row]
    good = routes.fits[link] & np.isfinite(value) & (quality < FIRST_BAD) & (quality != Quality.UNCERTAIN_AHEAD)
    noise: Floats = np.where(quality < FIRST_UNCERTAIN, 1.0, UNCERTAIN_NOISE)
    events = Events(routes.handle[link], routes.channel[link], chunk.time[row], chunk.ordinal[row], value, noise)
    return Routed(row, routes.slot[link], events, quality, good)


def fates(chunk: RawChunk, routed: Routed) -> Bytes:
    """(R,) each reading's fate if the bank will have none of it."""
    fate = np.full(len(chunk.point), Fate.UNBOUND, dtype=np.uint8)
    fate[routed.row] = Fate.UNIT
    fate[routed.row[routed.good]] = Fate.REFUSED
    fate[np.fromiter(chunk.side, dtype=np.int64, count=len(chunk.side))] = Fate.TYPED
    fate[chunk.quality == Quality.UNCERTAIN_AHEAD] = Fate.AHEAD
    fate[chunk.quality >= FIRST_BAD] = Fate.BAD
    return fate


def select(events: Events, rows: npt.NDArray[np.bool_] | Ints) -> Events:
    """Some of the events."""
    return Events._make(column[rows] for column in events)


def join(parts: Sequence[Events]) -> Events:
    """Events of several chunks as one batch."""
    return Events._make(np.concatenate(columns) for columns in zip(*parts, strict=True))
