"""Newest values for people while a backlog drains: unacknowledged, unstored, shown as live and not yet in the twin.

An edge that is behind sends its own and they are passed on in SI; a gateway that is behind adds those of its edges.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from wire.codec import decode, encode_record, join_frame
from wire.errors import BadData, Unavailable
from wire.messages import Frame, ReadingsBody, Record
from wire.quality import is_bad
from wire.runtime.link import Delivery, Link
from wire.topics import GatewayRoute, edge_of, edges_latest

BEHIND_S = 10.0
EVERY_S = 1.0
WAITING = 64
"""Newest values that may wait; the oldest are worth least and give way."""


class _Row(NamedTuple):
    time: int
    value: float | None
    quality: int


class Newest:
    """The newest reading of every point of every edge, kept only while ``behind`` says that somebody wants it."""

    def __init__(self, behind: Callable[[], bool]) -> None:
        self._behind = behind
        self._rows: dict[tuple[str, str], dict[int, _Row]] = {}

    def take(self, source: str, body: ReadingsBody) -> None:
        """Look at one record, in SI; typed values are passed over."""
        if not self._behind():
            self._rows.clear()
            return
        rows = self._rows.setdefault((source, body.schema_hash), {})
        typed = {row for row, _ in body.side}
        quality = body.quality or [0] * len(body.point)
        values = iter(body.value)
        for row, (point, dt, code) in enumerate(zip(body.point, body.dt, quality, strict=True)):
            if row in typed:
                continue
            value = None if is_bad(code) else next(values)
            if point not in rows or body.base + dt >= rows[point].time:
                rows[point] = _Row(body.base + dt, value, code)

    def records(self) -> list[Record]:
        """One record for each edge, outside its sequence."""
        return [
            Record(source=source, stream="telemetry", epoch=0, seq=-1, body=_body(schema_hash, rows))
            for (source, schema_hash), rows in self._rows.items()
            if rows
        ]


async def pass_up(
    south: Link,
    north: Link,
    route: GatewayRoute,
    convert: Callable[[Record], Record],
    refused: Callable[[str, bytes, str], None],
) -> None:
    """What edges that are behind say; until cancelled."""
    async for delivery in south.subscribe(edges_latest(route.site, route.gateway), capacity=WAITING):
        try:
            converted = [convert(record) for record in _own_words(delivery, route.site)]
        except BadData as error:
            refused(delivery.topic, delivery.payload, str(error))
            continue
        await _publish(north, route, converted)


async def glance(north: Link, route: GatewayRoute, newest: Newest) -> None:
    """What this gateway knows while it is behind itself; until cancelled."""
    while True:
        await asyncio.sleep(EVERY_S)
        await _publish(north, route, newest.records())


def _own_words(delivery: Delivery, site: str) -> list[Record]:
    """The records of one message; an edge speaks only of itself."""
    records = decode(Frame, delivery.payload).records
    if any(record.source != f"{site}/{edge_of(delivery.topic)}" for record in records):
        raise BadData("impostor", f"newest values of another edge on {delivery.topic}")
    return records


async def _publish(north: Link, route: GatewayRoute, records: list[Record]) -> None:
    if not records:
        return
    try:
        await north.publish(route.latest, join_frame(map(encode_record, records)))
    except Unavailable:
        return  # the newest values will be others by then


def _body(schema_hash: str, rows: dict[int, _Row]) -> ReadingsBody:
    base = min(row.time for row in rows.values())
    return ReadingsBody(
        schema_hash=schema_hash,
        base=base,
        point=list(rows),
        dt=[row.time - base for row in rows.values()],
        value=[row.value for row in rows.values() if row.value is not None],
        quality=[row.quality for row in rows.values()],
    )
