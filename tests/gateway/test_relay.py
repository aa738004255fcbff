"""The whole gateway on in-memory brokers and a real outbox: nothing lost, nothing twice, units turned into SI."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.config import GatewayConfig
from gateway.relay import Links, Relay
from wire.codec import decode, encode_record, join_frame
from wire.delivery import Position, Received, Receiver, StreamKey
from wire.messages import Ack, AckItem, Frame, PointDecl, ReadingsBody, Record, ResultBody, SchemaBody, State
from wire.quality import Quality
from wire.runtime.intake import Intake
from wire.runtime.memory import MemoryBroker, MemoryLink
from wire.runtime.mqtt import MqttConfig
from wire.runtime.outbox import Outbox
from wire.runtime.uplink import Uplink
from wire.topics import CLOUD_UP, EdgeRoute, GatewayRoute, gateway_of

Eventually = Callable[..., Awaitable[None]]

ROUTE = GatewayRoute("demo", "gw-1")
EDGE = EdgeRoute("demo", "gw-1", "edge-1")
SOURCE = "demo/edge-1"
SCHEMA = SchemaBody(
    schema_hash="s1",
    config_hash="c",
    points=[
        PointDecl(device="plc", point="level", unit="cm", device_unit="cm"),
        PointDecl(device="plc", point="oven", unit="degC", device_unit="degC"),
    ],
)
T0 = 1_700_000_000_000_000_000


def reading(index: int) -> ReadingsBody:
    return ReadingsBody(
        schema_hash="s1", base=T0 + index * 100_000_000, point=[0, 1], dt=[0, 1], value=[float(index), 20.0]
    )


@asynccontextmanager
async def running(*parts: Awaitable[None]) -> AsyncIterator[list[asyncio.Task[None]]]:
    """Background parts for as long as the block lasts."""
    async with asyncio.TaskGroup() as tasks:
        started = [tasks.create_task(part) for part in parts]  # type: ignore[arg-type]
        try:
            yield started
        finally:
            for task in started:
                task.cancel()


class Site:
    """One broker on each side, an edge below, a cloud above that remembers what it has committed."""

    def __init__(self, folder: Path, *, drop: float = 0.0, duplicate: float = 0.0, reorder: float = 0.0) -> None:
        faults = {"drop": drop, "duplicate": duplicate, "reorder": reorder}
        self.below, self.above = MemoryBroker(**faults, seed=1), MemoryBroker(**faults, seed=2)
        self.folder = folder
        self.committed: list[Received] = []
        self.positions: dict[StreamKey, Position] = {}
        self.config = GatewayConfig(
            gateway="gw-1", site="demo", state=str(folder / "gateway"), south=MqttConfig(), north=MqttConfig()
        )

    def relay(self, now: Callable[[], int] = time.time_ns) -> Relay:
        def connect(_config: GatewayConfig, will: bytes) -> Links:
            return Links(
                MemoryLink(self.below, "s"),
                MemoryLink(self.above, "n", will=(ROUTE.alive, will)),
                MemoryLink(self.below, "ss"),
                MemoryLink(self.above, "ns"),
            )

        return Relay(self.config, connect, now=now)

    @asynccontextmanager
    async def edge(self, clock: Callable[[], float] = time.monotonic) -> AsyncIterator[Outbox]:
        link = MemoryLink(self.below, "edge")
        async with Outbox(self.folder / "edge.db", source=SOURCE, linger_s=0.0) as outbox:
            uplink = Uplink(outbox, link, up_topic=EDGE.up, ack_topic=EDGE.ack, clock=clock)
            async with running(link.run(), uplink.run()):
                yield outbox

    @asynccontextmanager
    async def cloud(self) -> AsyncIterator[None]:
        link = MemoryLink(self.above, "cloud")

        async def commit(records: list[Received], positions: object) -> None:
            self.committed.extend(records)
            self.positions = dict(positions)  # type: ignore[call-overload]

        intake = Intake(
            link,
            CLOUD_UP,
            Receiver(self.positions),
            commit,
            lambda topic: gateway_of(topic).ack,
            term=lambda: 1,
        )
        async with running(link.run(), intake.run()):
            yield

    def bodies(self, stream: str = "telemetry") -> list[object]:
        return [each.record.body for each in self.committed if each.record.stream == stream]

    def levels(self) -> list[float]:
        return [body.value[0] for body in self.bodies() if isinstance(body, ReadingsBody)]


async def test_readings_arrive_in_si_with_their_identity(tmp_path: Path, eventually: Eventually) -> None:
    site = Site(tmp_path)
    async with site.cloud(), running(site.relay().run()), site.edge() as edge:
        await edge.declare(SCHEMA)
        for index in range(5):
            await edge.append("telemetry", reading(index), readings=2)
        result = ResultBody(
            cmd_id="1",
            device="plc",
            point="level",
            state=State.VERIFIED,
            reason="",
            at=T0,
            term=1,
            revision=1,
            value=3.0,
        )
        await edge.append("results", result)
        await eventually(lambda: len(site.levels()) == 5 and site.bodies("results"))
        await eventually(lambda: edge.totals.acked_readings == 10)
    schema = site.bodies()[0]
    assert isinstance(schema, SchemaBody)
    assert [(point.unit, point.device_unit) for point in schema.points] == [("m", "cm"), ("K", "degC")]
    assert site.levels() == pytest.approx([0.0, 0.01, 0.02, 0.03, 0.04])
    assert [each.record.seq for each in site.committed if each.record.stream == "telemetry"] == list(range(6))
    assert {each.record.source for each in site.committed} == {SOURCE}
    assert site.bodies("results") == [result]


async def test_a_bad_pipe_and_a_gateway_that_comes_and_goes_lose_nothing(
    tmp_path: Path, eventually: Eventually
) -> None:
    site = Site(tmp_path, drop=0.1, duplicate=0.1, reorder=0.2)
    async with site.cloud(), site.edge() as edge:
        await edge.declare(SCHEMA)
        for life in range(4):
            async with running(site.relay().run()):
                for index in range(25):
                    await edge.append("telemetry", reading(25 * life + index), readings=2)
                    await asyncio.sleep(0.002)
        async with running(site.relay().run()):
            await eventually(lambda: len(site.levels()) >= 100, seconds=30)
            await eventually(lambda: edge.totals.acked_readings == 200, seconds=30)
    assert site.levels() == pytest.approx([index / 100 for index in range(100)])


async def test_the_cloud_away_is_buffered_and_the_edge_is_acknowledged(tmp_path: Path, eventually: Eventually) -> None:
    site = Site(tmp_path)
    relay = site.relay()
    async with running(relay.run()), site.edge() as edge:
        await edge.declare(SCHEMA)
        for index in range(10):
            await edge.append("telemetry", reading(index), readings=2)
        await eventually(lambda: edge.totals.acked_readings == 20)
        assert relay.outbox.totals.pending_records == 11
        assert site.committed == []
        async with site.cloud():
            await eventually(lambda: len(site.levels()) == 10)
    assert Outbox.inspect(tmp_path / "gateway" / "outbox.db").committed_readings == 20


async def after_wiping_the_gateway(
    site: Site, eventually: Eventually, *, appended: int, now: Callable[[], int] = time.time_ns
) -> list[float]:
    """A gateway relays three readings, is replaced by one with an empty disk, and ``appended`` more follow. The edge's
    timers stand still: nothing is repeated unless an answer asks for it."""
    async with site.cloud(), site.edge(clock=lambda: 0.0) as edge:
        async with running(site.relay().run()):
            await asyncio.sleep(0.1)
            await edge.declare(SCHEMA)
            for index in range(3):
                await edge.append("telemetry", reading(index), readings=2)
            await eventually(lambda: len(site.levels()) == 3 and edge.totals.pending_records == 0)
        shutil.rmtree(site.folder / "gateway")
        relay = site.relay(now)
        async with running(relay.run()):
            await asyncio.sleep(0.1)
            for index in range(3, 3 + appended):
                await edge.append("telemetry", reading(index), readings=2)
                await asyncio.sleep(0.05)
            await eventually(lambda: len(site.levels()) == 3 + appended)
            await eventually(lambda: edge.totals.pending_records == 0)
    return site.levels()


async def test_a_gateway_without_memory_is_believed_at_its_first_answer(tmp_path: Path, eventually: Eventually) -> None:
    levels = await after_wiping_the_gateway(Site(tmp_path), eventually, appended=1)
    assert levels == pytest.approx([0.0, 0.01, 0.02, 0.03])


async def test_a_gateway_without_memory_whose_clock_was_put_back_is_believed_in_the_end(
    tmp_path: Path, eventually: Eventually
) -> None:
    levels = await after_wiping_the_gateway(Site(tmp_path), eventually, appended=6, now=lambda: 1_000)
    assert levels == pytest.approx([index / 100 for index in range(9)])


async def test_a_gateway_that_comes_back_says_where_it_stands(tmp_path: Path, eventually: Eventually) -> None:
    """The edge's timers stand still, so what it sent in between comes again only because the gateway speaks first."""
    site = Site(tmp_path)
    async with site.cloud(), site.edge(clock=lambda: 0.0) as edge:
        async with running(site.relay().run()):
            await asyncio.sleep(0.1)
            await edge.declare(SCHEMA)
            await eventually(lambda: site.bodies() and edge.totals.pending_records == 0)
        for index in range(3):
            await edge.append("telemetry", reading(index), readings=2)
        async with running(site.relay().run()):
            await eventually(lambda: len(site.levels()) == 3)
            await eventually(lambda: edge.totals.pending_records == 0)


async def test_an_edge_that_speaks_for_another_is_set_aside(tmp_path: Path, eventually: Eventually) -> None:
    site = Site(tmp_path)
    relay = site.relay()
    stranger = MemoryLink(site.below, "stranger")
    forged = Record(source="demo/edge-1", stream="telemetry", epoch=9, seq=0, body=SCHEMA)
    async with site.cloud(), running(stranger.run(), relay.run()):
        await stranger.connected()
        await eventually(lambda: site.below.links and relay.dead_letters.count == 0)
        await asyncio.sleep(0.1)
        await stranger.publish(EdgeRoute("demo", "gw-1", "edge-2").up("telemetry"), join_frame([encode_record(forged)]))
        await eventually(lambda: relay.dead_letters.count == 1)
    assert relay.tallies.intake.reasons == {"origin": 1}
    assert site.committed == []


async def test_an_edge_is_answered_only_after_the_commit(tmp_path: Path, eventually: Eventually) -> None:
    """With the disk refusing, no ack may leave."""
    site = Site(tmp_path)
    relay = site.relay()
    acked: list[AckItem] = []
    edge = MemoryLink(site.below, "edge")
    acks = edge.subscribe(EDGE.ack)

    async def listen() -> None:
        async for delivery in acks:
            acked.extend(decode(Ack, delivery.payload).items)

    full = asyncio.Event()
    store = relay.outbox.relay

    async def refusing(*arguments: object) -> None:
        await full.wait()
        await store(*arguments)  # type: ignore[arg-type]

    relay.outbox.relay = refusing  # type: ignore[assignment,method-assign]
    frame = Frame(records=[Record(source=SOURCE, stream="telemetry", epoch=9, seq=0, body=SCHEMA)])
    async with running(edge.run(), listen(), relay.run()):
        await edge.connected()
        await asyncio.sleep(0.1)
        await edge.publish(EDGE.up("telemetry"), encode_frame(frame))
        await asyncio.sleep(0.2)
        assert [item.seq for item in acked if item.seq >= 0] == []
        full.set()
        await eventually(lambda: [item.seq for item in acked][-1:] == [0])


async def test_what_is_no_frame_is_set_aside_and_the_rest_goes_on(tmp_path: Path, eventually: Eventually) -> None:
    site = Site(tmp_path)
    relay = site.relay()
    stranger = MemoryLink(site.below, "stranger")
    async with site.cloud(), running(stranger.run(), relay.run()), site.edge() as edge:
        await stranger.connected()
        await edge.declare(SCHEMA)
        await edge.append("telemetry", reading(0), readings=2)
        await eventually(lambda: len(site.levels()) == 1)
        for payload in (b"", b"{", b'{"v":2,"records":[]}', b'{"v":1,"records":[],"more":1}', b"[" * 100_000, b"\xff"):
            await stranger.publish(EDGE.up("telemetry"), payload)
        await eventually(lambda: relay.dead_letters.count == 6)
        await edge.append("telemetry", reading(1), readings=2)
        await eventually(lambda: len(site.levels()) == 2)
    lines = (tmp_path / "gateway" / "refused.jsonl").read_text().splitlines()
    assert [json.loads(line)["reason"].split(":")[0] for line in lines] == [
        "malformed",
        "malformed",
        "version",
        "malformed",
        "malformed",
        "malformed",
    ]


async def test_a_record_of_an_unknown_point_becomes_a_gap(tmp_path: Path, eventually: Eventually) -> None:
    site = Site(tmp_path)
    async with site.cloud(), running(site.relay().run()), site.edge() as edge:
        await edge.declare(SCHEMA)
        await edge.append("telemetry", reading(0).model_copy(update={"point": [0, 9]}), readings=2)
        await edge.append("telemetry", reading(1), readings=2)
        await eventually(lambda: len(site.levels()) == 1)
    gap = site.bodies()[1]
    assert (gap.kind, gap.count, gap.reason) == ("gap", 2, "damage")  # type: ignore[attr-defined]


async def test_an_unknown_unit_reaches_the_cloud_as_a_reason(tmp_path: Path, eventually: Eventually) -> None:
    site = Site(tmp_path)
    odd = SCHEMA.model_copy(
        update={
            "points": [
                SCHEMA.points[0].model_copy(update={"unit": "cubits", "device_unit": "cubits"}),
                SCHEMA.points[1],
            ]
        }
    )
    async with site.cloud(), running(site.relay().run()), site.edge() as edge:
        await edge.declare(odd)
        await edge.append("telemetry", reading(0), readings=2)
        await eventually(lambda: len(site.bodies()) == 2)
    body = site.bodies()[1]
    assert isinstance(body, ReadingsBody)
    assert body.quality == [Quality.BAD_TYPE, Quality.GOOD]
    assert body.value == pytest.approx([293.15])


def encode_frame(frame: Frame) -> bytes:
    """``kind`` is a default of the bodies, so the frame is joined the way a sender does it."""
    return join_frame(map(encode_record, frame.records))
