"""Outbox, uplink and intake together: two hops over a pipe that loses, repeats and reorders."""

from __future__ import annotations

import asyncio
import random
import shutil
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from wire.codec import encode_record, join_frame
from wire.delivery import Position, Received, Receiver, StreamKey
from wire.errors import Unavailable
from wire.messages import PointDecl, ReadingsBody, Record, ResultBody, SchemaBody, State, Stream
from wire.runtime.intake import Intake
from wire.runtime.link import Link
from wire.runtime.memory import MemoryBroker, MemoryLink
from wire.runtime.mqtt import MqttConfig, MqttLink
from wire.runtime.outbox import Outbox, Relayed
from wire.runtime.uplink import Uplink
from wire.topics import CLOUD_UP, EdgeRoute, GatewayRoute, edges_up

Eventually = Callable[..., Awaitable[None]]
STRANGERS: tuple[tuple[str, Stream], ...] = (("t/e", "telemetry"), ("s/e", "results"))
EDGE, UP = EdgeRoute("s", "g", "e"), edges_up("s", "g")
SCHEMA = SchemaBody(
    schema_hash="s1",
    config_hash="c1",
    points=[PointDecl(device="d", point="p", unit="degC", device_unit="degC")],
)


def readings(value: float, schema: str = "s1") -> ReadingsBody:
    return ReadingsBody(schema_hash=schema, base=1_000, point=[0], dt=[0], value=[value])


def result(number: int) -> ResultBody:
    return ResultBody(
        cmd_id=str(number), device="d", point="p", state=State.VERIFIED, reason="", at=1, term=1, revision=number
    )


class Sink:
    """The last hop: keeps what was committed, in order."""

    def __init__(self) -> None:
        self.batches: list[list[Received]] = []
        self.positions: dict[StreamKey, Position] = {}
        self.away = False

    async def commit(self, batch: list[Received], positions: Mapping[StreamKey, Position]) -> None:
        if self.away:
            raise Unavailable("the store is away")
        self.batches.append(batch)
        self.positions = dict(positions)

    @property
    def values(self) -> list[float]:
        return [
            item.record.body.value[0]
            for batch in self.batches
            for item in batch
            if isinstance(item.record.body, ReadingsBody)
        ]

    @property
    def results(self) -> list[str]:
        return [
            item.record.body.cmd_id
            for batch in self.batches
            for item in batch
            if isinstance(item.record.body, ResultBody)
        ]


def intake_to(link: Link, sink: Sink, receiver: Receiver, term: int = 1) -> Intake:
    return Intake(link, UP, receiver, sink.commit, lambda _: EDGE.ack, term=lambda: term)


def uplink_of(outbox: Outbox, link: Link) -> Uplink:
    return Uplink(outbox, link, up_topic=EDGE.up, ack_topic=EDGE.ack)


async def test_every_reading_arrives_once_and_in_order_through_a_bad_pipe(
    tmp_path: Path, eventually: Eventually
) -> None:
    broker = MemoryBroker(drop=0.1, duplicate=0.2, reorder=0.2, seed=1)
    edge, cloud, sink = MemoryLink(broker), MemoryLink(broker), Sink()
    async with Outbox(tmp_path / "edge.db", source="s/e", linger_s=0.0) as outbox:
        async with asyncio.TaskGroup() as tasks:
            parts = [edge.run(), cloud.run(), uplink_of(outbox, edge).run(), intake_to(cloud, sink, Receiver({})).run()]
            running = [tasks.create_task(part) for part in parts]
            await outbox.declare(SCHEMA)
            for number in range(300):
                assert await outbox.append("telemetry", readings(number), 1) == number + 1
            await outbox.append("results", result(7))
            await eventually(lambda: len(sink.values) >= 300 and sink.results, 30)
            await eventually(lambda: outbox.totals.pending_records == 0, 30)
            for task in running:
                task.cancel()
        assert sink.values == list(range(300))
        assert sink.results == ["7"]
        assert outbox.totals.acked_readings == outbox.totals.committed_readings == 300
    assert Outbox.inspect(tmp_path / "edge.db").committed_readings == 300


async def test_nothing_is_acknowledged_while_the_store_is_away(tmp_path: Path, eventually: Eventually) -> None:
    broker = MemoryBroker()
    edge, cloud, sink = MemoryLink(broker), MemoryLink(broker), Sink()
    sink.away = True
    async with Outbox(tmp_path / "edge.db", source="s/e") as outbox, asyncio.TaskGroup() as tasks:
        intake = intake_to(cloud, sink, Receiver({}))
        uplink = uplink_of(outbox, edge)
        running = [tasks.create_task(part.run()) for part in (edge, cloud, uplink, intake)]
        await outbox.declare(SCHEMA)
        await outbox.append("telemetry", readings(1.0), 1)
        await eventually(lambda: intake.counters.reasons.get("unavailable", 0) >= 3)
        assert uplink.counters.received == 0
        assert outbox.totals.acked_readings == 0
        assert uplink.lag_s > 0
        sink.away = False
        await eventually(lambda: outbox.totals.acked_readings == 1)
        for task in running:
            task.cancel()
    assert sink.values == [1.0]


async def test_two_hops_keep_the_identity_and_survive_a_gateway_without_memory(
    tmp_path: Path, eventually: Eventually
) -> None:
    south, north = MemoryBroker(), MemoryBroker()
    sink = Sink()
    final = Receiver({})

    async def gateway(name: str, term: int) -> None:
        """Relays until cancelled."""
        below, above = MemoryLink(south), MemoryLink(north)
        async with Outbox(tmp_path / name, source=None, linger_s=0.0, grace_s=60.0) as relay:

            async def commit(batch: list[Received], positions: Mapping[StreamKey, Position]) -> None:
                records = [Relayed.of(item.record, item.raw) for item in batch if item.record.seq >= 0]
                await relay.relay(records, positions)

            receiver = Receiver(relay.positions())
            intake = Intake(below, UP, receiver, commit, lambda _: EDGE.ack, term=lambda: term)
            async with asyncio.TaskGroup() as tasks:
                for part in (below.run(), above.run(), intake.run(), uplink_of(relay, above).run()):
                    tasks.create_task(part)

    edge, cloud = MemoryLink(south), MemoryLink(north)
    async with Outbox(tmp_path / "edge.db", source="s/e", linger_s=0.0) as outbox, asyncio.TaskGroup() as tasks:
        parts = [edge.run(), cloud.run(), uplink_of(outbox, edge).run(), intake_to(cloud, sink, final).run()]
        running = [tasks.create_task(part) for part in parts]
        await outbox.declare(SCHEMA)
        for name, term in (("g1.db", 1), ("g1.db", 2), ("g2.db", 3)):
            relaying = tasks.create_task(gateway(name, term))
            first = len(sink.values)
            for number in range(first, first + 50):
                await outbox.append("telemetry", readings(number), 1)
            await eventually(lambda goal=first + 50: len(sink.values) >= goal, 20)
            await eventually(lambda: outbox.totals.pending_records == 0)
            relaying.cancel()
            await asyncio.wait([relaying])
        for task in running:
            task.cancel()
    assert sink.values == list(range(150))
    assert sink.positions[StreamKey("s/e", "telemetry")].next_seq == 151


async def test_a_receiver_that_forgot_the_schema_asks_for_it(tmp_path: Path, eventually: Eventually) -> None:
    broker = MemoryBroker()
    edge, cloud, sink = MemoryLink(broker), MemoryLink(broker), Sink()
    key = StreamKey("s/e", "telemetry")
    async with Outbox(tmp_path / "edge.db", source="s/e", linger_s=0.0) as outbox:
        await outbox.declare(SCHEMA)
        async with asyncio.TaskGroup() as tasks:
            receiver = Receiver({key: Position(outbox.epoch, 1)})
            running = [
                tasks.create_task(part.run())
                for part in (edge, cloud, uplink_of(outbox, edge), intake_to(cloud, sink, receiver))
            ]
            await outbox.append("telemetry", readings(5.0), 1)
            await eventually(lambda: sink.values == [5.0])
            for task in running:
                task.cancel()
    first = sink.batches[0][0].record
    assert (first.seq, first.body) == (-1, SCHEMA)


async def test_a_restored_edge_loses_nothing_and_repeats_nothing(tmp_path: Path, eventually: Eventually) -> None:
    path, image, sink = tmp_path / "edge.db", tmp_path / "image.db", Sink()
    broker, receiver = MemoryBroker(), Receiver({})

    async def life(first: int, last: int, *, online: bool = True) -> None:
        edge = MemoryLink(broker)
        async with Outbox(path, source="s/e", linger_s=0.0) as outbox, asyncio.TaskGroup() as tasks:
            await outbox.declare(SCHEMA)
            for number in range(first, last):
                await outbox.append("telemetry", readings(number), 1)
            if online:
                running = [tasks.create_task(part.run()) for part in (edge, uplink_of(outbox, edge))]
                await eventually(lambda: outbox.totals.pending_records == 0)
                for task in running:
                    task.cancel()

    cloud = MemoryLink(broker)
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(part.run()) for part in (cloud, intake_to(cloud, sink, receiver))]
        await life(0, 5)
        shutil.copy(path, image)
        await life(5, 20)
        shutil.copy(image, path)
        await life(20, 60, online=False)
        await life(60, 70)
        for task in running:
            task.cancel()
    assert sink.values == list(range(70))


async def test_random_deaths_of_every_part_lose_nothing_and_repeat_nothing(
    tmp_path: Path, eventually: Eventually
) -> None:
    """Edge, gateway and cloud are cancelled at random moments and built again from what they had committed."""
    rng, sink = random.Random(3), Sink()
    south = MemoryBroker(drop=0.05, duplicate=0.1, reorder=0.1, seed=1)
    north = MemoryBroker(drop=0.05, duplicate=0.1, reorder=0.1, seed=2)
    total, made, deaths, terms = 300, 0, 0, iter(range(1, 1000))

    async def edge() -> None:
        nonlocal made
        link = MemoryLink(south)
        async with Outbox(tmp_path / "e.db", source="s/e", linger_s=0.0) as outbox, asyncio.TaskGroup() as tasks:
            tasks.create_task(link.run())
            tasks.create_task(uplink_of(outbox, link).run())
            await outbox.declare(SCHEMA)
            made = outbox.totals.committed_readings
            while made < total:
                await outbox.append("telemetry", readings(made), 1)
                made += 1
                await asyncio.sleep(0.02)

    async def gateway() -> None:
        below, above = MemoryLink(south), MemoryLink(north)
        async with Outbox(tmp_path / "g.db", source=None, linger_s=0.0, grace_s=9.0) as relay:

            async def commit(batch: list[Received], positions: Mapping[StreamKey, Position]) -> None:
                await relay.relay([Relayed.of(each.record) for each in batch if each.record.seq >= 0], positions)

            term = next(terms)
            intake = Intake(below, UP, Receiver(relay.positions()), commit, lambda _: EDGE.ack, term=lambda: term)
            async with asyncio.TaskGroup() as tasks:
                for part in (below, above, intake, uplink_of(relay, above)):
                    tasks.create_task(part.run())

    async def cloud() -> None:
        link = MemoryLink(north)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(link.run())
            tasks.create_task(intake_to(link, sink, Receiver(sink.positions), next(terms)).run())

    async with asyncio.TaskGroup() as tasks:
        parts = {part: tasks.create_task(part()) for part in (edge, gateway, cloud)}
        while len(sink.values) < total:
            await asyncio.sleep(rng.random() * 0.4)
            deaths += 1
            victim = rng.choice(list(parts))
            parts[victim].cancel()
            await asyncio.wait([parts[victim]])
            parts[victim] = tasks.create_task(victim())
        for task in parts.values():
            task.cancel()
    assert sink.values == list(range(total))
    assert deaths >= 10


async def test_a_payload_that_is_no_frame_is_set_aside(tmp_path: Path, eventually: Eventually) -> None:
    broker = MemoryBroker()
    edge, cloud, sink = MemoryLink(broker), MemoryLink(broker), Sink()
    refused: list[tuple[str, bytes, str]] = []
    intake = Intake(
        cloud,
        UP,
        Receiver({}),
        sink.commit,
        lambda _: EDGE.ack,
        term=lambda: 1,
        refused=lambda *what: refused.append(what),
    )
    poison = [b"", b"{", b"null", b'{"v":9,"records":[]}', b"\xff", b'{"v":1,"records":[{"seq":NaN}]}', b"[" * 100_000]
    async with Outbox(tmp_path / "edge.db", source="s/e", linger_s=0.0) as outbox, asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(part.run()) for part in (edge, cloud, intake, uplink_of(outbox, edge))]
        await asyncio.gather(edge.connected(), cloud.connected())
        for payload in poison:
            await edge.publish(EDGE.up("telemetry"), payload)
        await outbox.declare(SCHEMA)
        await outbox.append("telemetry", readings(1.0), 1)
        await eventually(lambda: sink.values == [1.0])
        for task in running:
            task.cancel()
    assert [payload for _, payload, _ in refused] == poison
    assert intake.counters.reasons == {"malformed": 6, "version": 1}


async def test_a_broker_that_dies_costs_less_than_half_a_second(
    tmp_path: Path, mosquitto: Any, eventually: Eventually
) -> None:
    config, sink = MqttConfig(port=mosquitto.port), Sink()
    edge, cloud = MqttLink(config, "edge"), MqttLink(config, "cloud")
    async with Outbox(tmp_path / "edge.db", source="s/e", linger_s=0.0) as outbox, asyncio.TaskGroup() as tasks:
        parts = (edge, cloud, uplink_of(outbox, edge), intake_to(cloud, sink, Receiver({})))
        running = [tasks.create_task(part.run()) for part in parts]
        await outbox.declare(SCHEMA)
        number, away = 0, []
        for _ in range(3):
            for _ in range(20):
                await outbox.append("telemetry", readings(number), 1)
                number += 1
            await eventually(lambda goal=number: len(sink.values) == goal)
            mosquitto.kill()
            for _ in range(20):
                await outbox.append("telemetry", readings(number), 1)
                number += 1
            mosquitto.start()
            began = time.monotonic()
            await eventually(lambda goal=number: len(sink.values) == goal)
            away.append(time.monotonic() - began)
        for task in running:
            task.cancel()
    assert sink.values == list(range(number))
    assert sorted(away)[1] < 0.5, away


async def test_a_receiver_that_is_back_says_so_and_no_timer_is_needed(tmp_path: Path, eventually: Eventually) -> None:
    """The sender's clock stands still: what it sent while nobody listened comes again only because it is told to."""
    broker = MemoryBroker()
    edge, cloud, sink = MemoryLink(broker), MemoryLink(broker), Sink()
    async with Outbox(tmp_path / "edge.db", source="s/e", linger_s=0.0) as outbox, asyncio.TaskGroup() as tasks:
        uplink = Uplink(outbox, edge, up_topic=EDGE.up, ack_topic=EDGE.ack, clock=lambda: 0.0)
        parts = (edge.run(), uplink.run(), intake_to(cloud, sink, Receiver({})).run())
        running = [tasks.create_task(part) for part in parts]
        listening = tasks.create_task(cloud.run())
        await outbox.declare(SCHEMA)
        await outbox.append("telemetry", readings(0), 1)
        await eventually(lambda: outbox.totals.pending_records == 0)
        listening.cancel()
        await asyncio.wait([listening])
        for number in range(1, 51):
            await outbox.append("telemetry", readings(number), 1)
        await eventually(lambda: uplink.counters.sent >= 50)
        before = uplink.counters.sent
        running.append(tasks.create_task(cloud.run()))
        await eventually(lambda: len(sink.values) == 51)
        await eventually(lambda: outbox.totals.pending_records == 0)
        assert uplink.counters.sent <= before + 2, "the backlog travels in full frames"
        for task in running:
            task.cancel()
    assert sink.values == list(range(51))


async def test_who_speaks_for_somebody_else_is_refused(tmp_path: Path, eventually: Eventually) -> None:
    broker = MemoryBroker()
    edge, cloud, sink = MemoryLink(broker), MemoryLink(broker), Sink()
    refused: list[tuple[str, bytes, str]] = []
    lane = GatewayRoute("s", "g")
    forged = [
        join_frame([encode_record(Record(source=source, stream=stream, epoch=1, seq=0, body=SCHEMA))])
        for source, stream in STRANGERS
    ]
    own = encode_record(Record(source="s/e", stream="telemetry", epoch=1, seq=0, body=SCHEMA))
    mixed = join_frame([own, forged[0][len(b'{"v":1,"records":[') : -2]])
    intake = Intake(
        cloud,
        CLOUD_UP,
        Receiver({}),
        sink.commit,
        lambda _: lane.ack,
        term=lambda: 1,
        refused=lambda *what: refused.append(what),
    )
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(part.run()) for part in (edge, cloud, intake)]
        await asyncio.gather(edge.connected(), cloud.connected())
        for payload in (*forged, mixed, join_frame([own])):
            await edge.publish(lane.up("telemetry"), payload)
        await eventually(lambda: sink.batches)
        for task in running:
            task.cancel()
    assert [payload for _, payload, _ in refused] == [*forged, mixed]
    assert intake.counters.reasons == {"origin": 3}
    assert [item.record.source for batch in sink.batches for item in batch] == ["s/e"]
