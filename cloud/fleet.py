"""The twins that a worker serves: their handles in the bank, the points they listen to, and what was last read there.

The fleet follows the registry: a new twin is adopted, a changed model starts again from its prior, a twin that is only
bound differently keeps its state. Nothing here does I/O.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cloud.bank import Bank
from cloud.columns import Schema
from cloud.history.base import Bytes, Floats, Ints
from cloud.routing import Link, Routed, Routes, bindings, compile_routes
from cloud.twins.model import Twin
from wire.points import PointId
from wire.quality import FIRST_BAD


@dataclass(frozen=True, slots=True)
class Member:
    """One adopted twin; its channels have the slots from ``slot`` on."""

    twin: Twin
    handle: int
    slot: int


class Fleet:
    """Adopted twins by name, and the routes from points to them."""

    def __init__(self, bank: Bank) -> None:
        self.members: dict[str, Member] = {}
        self.newest = Newest()
        self._bank = bank
        self._links: dict[PointId, list[Link]] = {}
        self._routes: dict[tuple[str, str], Routes] = {}

    def follow(self, twins: Mapping[str, Twin]) -> None:
        """Make the fleet equal to the registry."""
        for name in [name for name, member in self.members.items() if not _same_model(member.twin, twins.get(name))]:
            self._bank.forget(self.members.pop(name).handle)
        for name, twin in twins.items():
            before = self.members.get(name)
            if before is not None:
                self.members[name] = Member(twin, before.handle, before.slot)
            else:
                handle = self._bank.adopt(twin)
                self.members[name] = Member(twin, handle, self.newest.grow(len(twin.type.channels)))
        self._links.clear()
        self._routes.clear()
        for member in self.members.values():
            for channel, unit, point in bindings(member.twin):
                link = Link(member.handle, channel, member.slot + channel, unit)
                self._links.setdefault(point, []).append(link)

    def routes(self, source: str, schema: Schema) -> Routes:
        """Where the readings of one schema go; compiled at first use and after every change of the fleet."""
        routes = self._routes.get((source, schema.hash))
        if routes is None:
            routes = self._routes[source, schema.hash] = compile_routes(schema, self._links)
        return routes


class Newest:
    """The newest reading of each channel, by slot: good or bad, fused or not. For people, never for the filter."""

    def __init__(self) -> None:
        self.time: Ints = np.zeros(0, dtype=np.int64)
        self.value: Floats = np.zeros(0)
        self.quality: Bytes = np.zeros(0, dtype=np.uint8)
        self.fused: npt.NDArray[np.bool_] = np.zeros(0, dtype=np.bool_)

    def grow(self, channels: int) -> int:
        """Make room for the channels of one more twin; returns the first one's slot."""
        first = len(self.time)
        self.time = np.append(self.time, np.full(channels, -1, dtype=np.int64))
        self.value = np.append(self.value, np.full(channels, np.nan))
        self.quality = np.append(self.quality, np.zeros(channels, dtype=np.uint8))
        self.fused = np.append(self.fused, np.zeros(channels, dtype=np.bool_))
        return first

    def take(self, routed: Routed, *, fused: bool) -> None:
        """Note the newest of these readings; of equal stamps the one with the highest ordinal counts."""
        order = np.lexsort((routed.events.origin, routed.events.time, routed.slot))
        slots = routed.slot[order]
        last = order[np.append(slots[1:] != slots[:-1], True)] if len(order) else order
        newer = last[routed.events.time[last] >= self.time[routed.slot[last]]]
        slot = routed.slot[newer]
        self.time[slot] = routed.events.time[newer]
        self.value[slot] = np.where(routed.quality[newer] < FIRST_BAD, routed.events.value[newer], np.nan)
        self.quality[slot] = routed.quality[newer]
        self.fused[slot] = fused


def _same_model(before: Twin, after: Twin | None) -> bool:
    return (
        after is not None
        and before.type.hash == after.type.hash
        and before.parameters.tobytes() == after.parameters.tobytes()
    )
