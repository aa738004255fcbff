"""A gateway in miniature for worker tests: it keeps records and sends them again until they are acknowledged."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from cloud.twins.model import Twin, TwinType
from wire.codec import decode, encode, encode_record, join_frame
from wire.errors import Unavailable
from wire.messages import Ack, Alive, Body, PointDecl, ReadingsBody, Record, SchemaBody
from wire.points import PointId
from wire.runtime.memory import MemoryBroker, MemoryLink
from wire.topics import GatewayRoute

SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND
SOURCE = "demo/edge-1"
ROUTE = GatewayRoute("demo", "gw-1")
POINTS = ("u0", "u1", "s0", "s1", "loose")


def point(name: str) -> PointId:
    return PointId("demo", "edge-1", "dev", name)


def schema(unit: str = "1", schema_hash: str = "s1") -> SchemaBody:
    decls = [PointDecl(device="dev", point=name, unit=unit, device_unit="mV", writable=name == "u0") for name in POINTS]
    return SchemaBody(schema_hash=schema_hash, config_hash="c1", points=decls)


def readings(rows: Sequence[tuple[str, float, float, int]], lag: float = 0.0, schema_hash: str = "s1") -> ReadingsBody:
    """A body from rows (point, seconds after START, value, quality)."""
    return ReadingsBody(
        schema_hash=schema_hash,
        base=START,
        point=[POINTS.index(row[0]) for row in rows],
        dt=[round(row[1] * SECOND) for row in rows],
        value=[row[2] for row in rows if row[3] < 128],
        quality=[row[3] for row in rows],
        lag=[round(lag * SECOND)] * len(rows),
    )


@dataclass
class Site:
    """``add`` commits a record to its memory; ``run`` keeps sending what is not acknowledged."""

    broker: MemoryBroker
    route: GatewayRoute = ROUTE
    source: str = SOURCE
    epoch: int = 1
    sent: dict[str, list[bytes]] = field(default_factory=lambda: {"telemetry": [], "results": []})
    acked: dict[str, int] = field(default_factory=lambda: {"telemetry": -1, "results": -1})
    acks: list[Ack] = field(default_factory=list)
    highest: int = 0
    """How far anything was ever acknowledged."""

    def __post_init__(self) -> None:
        self.link = MemoryLink(self.broker, "site")
        self._answers = self.link.subscribe(self.route.ack)

    def add(self, body: Body, stream: str = "telemetry") -> None:
        records = self.sent[stream]
        record = Record.model_validate(
            {"source": self.source, "stream": stream, "epoch": self.epoch, "seq": len(records), "body": body}
        )
        records.append(encode_record(record))

    @property
    def drained(self) -> bool:
        return all(self.acked[stream] == len(records) - 1 for stream, records in self.sent.items())

    async def run(self, burst: int = 20) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.link.run())
            tasks.create_task(self._listen())
            tasks.create_task(self._send(burst))

    async def _send(self, burst: int) -> None:
        while True:
            await asyncio.sleep(0.004)
            for stream, records in self.sent.items():
                first = self.acked[stream] + 1
                if records[first:]:
                    await self.publish(self.route.up(stream), join_frame(records[first : first + burst]))

    async def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        try:
            await self.link.publish(topic, payload, retain=retain)
        except Unavailable:
            await asyncio.sleep(0.01)

    async def _listen(self) -> None:
        async for delivery in self._answers:
            ack = decode(Ack, delivery.payload)
            self.acks.append(ack)
            for item in ack.items:
                assert item.source == self.source
                assert item.seq < len(self.sent[item.stream]), "acknowledged what was never sent"
                self.acked[item.stream] = item.seq
                self.highest = max(self.highest, item.seq)


@dataclass
class Shelf:
    """A registry of twins that are simply put there."""

    revision: int = 0
    kept: dict[str, Twin] = field(default_factory=dict)

    def put(self, *twins: Twin) -> None:
        self.kept = self.kept | {twin.name: twin for twin in twins}
        self.revision += 1

    def twins(self) -> Mapping[str, Twin]:
        return self.kept


def bound(kind: TwinType, name: str, **channels: str) -> Twin:
    """A twin of a type with the named points of the site's device on its channels."""
    wanted = channels or {channel: channel for channel in kind.channels}
    return Twin(name, kind, np.zeros(0), {channel: point(name) for channel, name in wanted.items()}, {})


@contextmanager
def stopping(*tasks: asyncio.Task[None]) -> Iterator[None]:
    """Cancel the tasks on the way out."""
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()


def alive(**changes: object) -> bytes:
    """An edge's announcement."""
    return encode(
        Alive.model_validate(
            {
                "site": "demo",
                "name": "edge-1",
                "role": "edge",
                "online": True,
                "at": START,
                "nonce": "boot-1",
                **changes,
            }
        )
    )
