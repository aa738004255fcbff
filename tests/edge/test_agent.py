"""The whole agent between a device that can be told to lie and a gateway that commits what it hears."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from edge import assembly
from edge.agent import Agent
from tests.edge.modbus_stub import Stub, serving
from tests.edge.test_opcua import URI, plant
from wire.codec import decode
from wire.delivery import Position, Received, Receiver, StreamKey
from wire.messages import UNVERIFIED, Alive, Frame, ReadingsBody, ResultBody, SchemaBody, Setpoint, State
from wire.quality import FIRST_BAD, Quality
from wire.runtime.intake import Intake
from wire.runtime.memory import MemoryBroker, MemoryLink
from wire.runtime.mqtt import MqttConfig
from wire.runtime.outbox import Outbox
from wire.signing import key_id, new_key, public_text, sign
from wire.topics import EdgeRoute

ROUTE = EdgeRoute("demo", "gw-1", "edge-1")
KEY = new_key()
Eventually = Callable[..., Awaitable[None]]

PROFILE = """\
profile: tank
kind: modbus
points:
  - {point: level, unit: cm, table: input, address: 0, scale: 0.01, range: [0, 100]}
  - {point: pump, unit: V, table: holding, address: 7, scale: 0.001, read: false}
  - point: pump-set
    unit: V
    table: holding
    address: 8
    scale: 0.001
    write: {range: [0, 10], safe: 3.0, tolerance: 0.01, settle: 200 ms, dwell: 40 ms}
"""


def files(folder: Path, port: int, *, period: str = "20 ms") -> str:
    (folder / "tank.yaml").write_text(PROFILE)
    trusted = f"{{kid: {key_id(KEY)}, public_key: {public_text(KEY)}, points: [demo/edge-1/*/*]}}"
    (folder / "trust.yaml").write_text(f"trust: demo\nkeys: [{trusted}]\n")
    (folder / "edge.yaml").write_text(
        "edge: edge-1\nsite: demo\ngateway: gw-1\nstate: state\nlink: {kind: mqtt}\ntrust: trust.yaml\ndevices:\n"
        f"  - {{device: tank, kind: modbus, profile: tank.yaml, period: {period}, host: 127.0.0.1, port: {port},"
        " timeout: 200 ms}\n"
    )
    return str(folder / "edge.yaml")


@dataclass
class Gateway:
    """Commits in memory, and knows what the edge last said of itself."""

    broker: MemoryBroker
    records: list[Received] = field(default_factory=list)
    alive: Alive | None = None
    glances: list[Frame] = field(default_factory=list)
    receiver: Receiver = field(default_factory=lambda: Receiver({}))

    async def run(self) -> None:
        link = MemoryLink(self.broker)
        alive, latest = link.subscribe(ROUTE.alive), link.subscribe(ROUTE.latest)
        intake = Intake(
            link, ROUTE.up("+"), self.receiver, self._commit, lambda topic: ROUTE.ack, term=lambda: 0, linger_s=0.01
        )
        self.link = link
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(link.run())
            tasks.create_task(intake.run())
            tasks.create_task(self._glance(latest))
            async for delivery in alive:
                self.alive = decode(Alive, delivery.payload)

    async def _commit(self, records: list[Received], positions: Mapping[StreamKey, Position]) -> None:
        self.records += records

    async def _glance(self, latest: Any) -> None:
        async for delivery in latest:
            self.glances.append(decode(Frame, delivery.payload))

    def bodies(self, kind: type) -> list[Any]:
        return [received.record.body for received in self.records if isinstance(received.record.body, kind)]

    def results(self, cmd_id: str) -> list[ResultBody]:
        return [body for body in self.bodies(ResultBody) if body.cmd_id == cmd_id]

    def rows(self) -> list[tuple[int, int, int, float | None]]:
        """(point, time, quality, value)."""
        out = []
        for body in self.bodies(ReadingsBody):
            values = iter(body.value)
            for row, (point, dt) in enumerate(zip(body.point, body.dt, strict=True)):
                code = body.quality[row] if body.quality else 0
                out.append((point, body.base + dt, code, None if code >= FIRST_BAD else next(values)))
        return out

    def setpoint(self, value: float, revision: int, **changes: Any) -> bytes:
        assert self.alive is not None
        now = time.time_ns()
        fields = {
            "kid": key_id(KEY), "site": "demo", "edge": "edge-1", "device": "tank", "point": "pump-set",
            "value": value, "unit": "V", "cmd_id": f"c{revision}", "issuer": "test", "slot": 8, "term": 1,
            "revision": revision, "iat": now, "exp": now + 2_000_000_000, "hold_s": 30.0, "nonce": self.alive.nonce,
            "reason": "test",
        }  # fmt: skip
        return sign(Setpoint.model_validate(fields | changes), KEY)

    async def command(self, payload: bytes) -> None:
        await self.link.publish(ROUTE.setpoint, payload, qos=1)


@asynccontextmanager
async def running(config: str, broker: MemoryBroker, gateway: Gateway | None = None) -> AsyncIterator[Gateway]:
    """An agent and a gateway on one broker."""
    gateway = gateway or Gateway(broker)

    def connect(config: MqttConfig, client_id: str, will: tuple[str, bytes] | None = None) -> MemoryLink:
        return MemoryLink(broker, client_id, will)

    async with asyncio.TaskGroup() as tasks:
        hub = tasks.create_task(gateway.run(), name="gateway")
        agent = tasks.create_task(Agent(assembly.read(config), connect=connect).run(), name="agent")
        async with asyncio.timeout(5):
            while gateway.alive is None or not gateway.alive.online:
                await asyncio.sleep(0.005)
        try:
            yield gateway
        finally:
            agent.cancel()
            await asyncio.wait([agent])
            await asyncio.sleep(0.02)
            hub.cancel()


async def test_readings_arrive_once_in_order_with_schema_first(tmp_path: Path, eventually: Eventually) -> None:
    async with serving(Stub(words={0: 1234})) as stub, running(files(tmp_path, stub.port), MemoryBroker()) as gateway:
        await eventually(lambda: len(gateway.rows()) > 40)
        assert isinstance(gateway.records[0].record.body, SchemaBody)
        schema = gateway.bodies(SchemaBody)[0]
        assert [(p.device, p.point, p.unit, p.writable) for p in schema.points] == [
            ("tank", "level", "cm", False), ("tank", "pump", "V", False), ("tank", "pump-set", "V", True),
        ]  # fmt: skip
        levels = [(time, value) for point, time, _, value in gateway.rows() if point == 0]
        assert {value for _, value in levels} == {12.34}
        assert [time for time, _ in levels] == sorted({time for time, _ in levels})
        assert {point for point, *_ in gateway.rows()} == {0, 2}, "a point with read: false is not polled"


async def test_every_committed_reading_arrives_whatever_the_broker_does(
    tmp_path: Path, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.presence.REPEAT_S", 0.2)
    broker = MemoryBroker(drop=0.1, duplicate=0.1, reorder=0.1, seed=3)
    gateway = Gateway(broker)
    async with serving(Stub()) as stub:
        config = files(tmp_path, stub.port)
        for _ in range(3):
            async with running(config, broker, gateway):
                await asyncio.sleep(0.3)
                broker.stop()
                await asyncio.sleep(0.2)
                broker.start()
                await asyncio.sleep(0.3)
            gateway.alive = None
        async with running(config, broker, gateway):
            await eventually(lambda: len(gateway.rows()) > 100)
            await asyncio.sleep(0.3)
            broker.drop = broker.duplicate = broker.reorder = 0.0
            await asyncio.sleep(0.5)
        committed = Outbox.inspect(tmp_path / "state" / "outbox.db")
        keys = [(point, time) for point, time, _, _ in gateway.rows()]
        assert len(keys) == len(set(keys)), "none twice"
        assert committed.acked_readings <= len(keys) <= committed.committed_readings, (
            "released only when it has arrived"
        )
        seqs = [each.record.seq for each in gateway.records if each.record.stream == "telemetry"]
        assert seqs == list(range(len(seqs)))


async def test_a_dead_device_is_one_bad_row_a_point_then_silence(tmp_path: Path, eventually: Eventually) -> None:
    stub = Stub(words={0: 100})
    async with serving(stub):
        config = files(tmp_path, stub.port)
        broker = MemoryBroker()
        async with running(config, broker) as gateway:
            await eventually(lambda: len(gateway.rows()) > 4)
            stub.lie = lambda reply: None
            await eventually(lambda: any(code for _, _, code, _ in gateway.rows()))
            await asyncio.sleep(1.0)
            # the poll in which it died may have had half its answers
            bad = [(point, code) for point, _, code, _ in gateway.rows() if code not in (0, Quality.BAD_TIMEOUT)]
            assert sorted(bad) == [(0, Quality.BAD_CONNECTION), (2, Quality.BAD_CONNECTION)]
            assert sum(code == Quality.BAD_TIMEOUT for _, _, code, _ in gateway.rows()) <= 1
            before = len(gateway.rows())
            stub.lie = lambda reply: reply
            await eventually(lambda: len(gateway.rows()) > before + 4)


async def test_a_setpoint_is_accepted_and_verified(tmp_path: Path, eventually: Eventually) -> None:
    async with serving(Stub()) as stub, running(files(tmp_path, stub.port), MemoryBroker()) as gateway:
        await eventually(lambda: len(gateway.rows()) > 4)
        await gateway.command(gateway.setpoint(4.5, 1))
        await eventually(lambda: len(gateway.results("c1")) == 2)
        assert [(body.state, body.value, body.readback) for body in gateway.results("c1")] == [
            (State.ACCEPTED, None, None),
            (State.VERIFIED, 4.5, 4.5),
        ]
        assert stub.writes == [(8, 4500)]
        assert gateway.results("c1")[1].revision == 1
        await eventually(lambda: gateway.alive and [r.revision for r in gateway.alive.revisions] == [1])


async def test_nothing_wrong_is_ever_written_and_the_reason_comes_back(tmp_path: Path, eventually: Eventually) -> None:
    async with serving(Stub()) as stub, running(files(tmp_path, stub.port), MemoryBroker()) as gateway:
        await eventually(lambda: len(gateway.rows()) > 4)
        good = gateway.setpoint(4.5, 5)
        await gateway.command(good)
        await eventually(lambda: len(gateway.results("c5")) == 2)
        wrong = {
            "range": gateway.setpoint(10.5, 6),
            "not-listed": gateway.setpoint(1.0, 7, point="pump"),
            "unit": gateway.setpoint(1.0, 8, unit="mV"),
            "deadline": gateway.setpoint(1.0, 9, exp=time.time_ns() - 1),
            "nonce": gateway.setpoint(1.0, 10, nonce="another boot"),
            "issued-in-future": gateway.setpoint(1.0, 11, iat=time.time_ns() + 10_000_000_000),
            "revision": gateway.setpoint(1.0, 4),
        }
        for payload in wrong.values():
            await gateway.command(payload)
        true = gateway.setpoint(2.0, 12)
        flipped = bytearray(true)
        flipped[10] = ord("A") if flipped[10] != ord("A") else ord("B")
        forged = {
            "signature": [good.replace(b"4.5", b"6.5"), bytes(flipped), sign_by_stranger(gateway)],
            "malformed": [b"\x00" * 100, true[:-20], true.replace(b"2.0", b"true"), b""],
            "oversize": [true + b" " * 5000],
            "unknown-key": [gateway.setpoint(2.0, 13, kid="k-of-nobody")],
            "not-allowed": [gateway.setpoint(2.0, 14, edge="edge-2")],
        }
        for payload in (good, *(payload for payloads in forged.values() for payload in payloads)):
            await gateway.command(payload)
        await eventually(lambda: len(gateway.bodies(ResultBody)) == 2 + len(wrong) + 1 + 10)
        await asyncio.sleep(0.1)
        assert [(body.state, body.reason) for body in gateway.results("c5")] == [
            (State.ACCEPTED, "accepted"),
            (State.VERIFIED, "readback"),
            (State.ACCEPTED, "repeated"),
        ]
        unverified = gateway.results(UNVERIFIED)
        assert {body.state for body in unverified} == {State.REJECTED}
        assert Counter(body.reason for body in unverified) == {why: len(sent) for why, sent in forged.items()}
        named = {(body.device, body.point) for body in unverified}
        assert named == {("tank", "pump-set"), ("unknown", "unknown")}
        answers = {
            body.cmd_id: (body.state, body.reason)
            for body in gateway.bodies(ResultBody)
            if body.cmd_id != UNVERIFIED and body.reason != "repeated"
        }
        assert answers == {
            "c5": (State.VERIFIED, "readback"),
            "c6": (State.REJECTED, "range"),
            "c7": (State.REJECTED, "not-listed"),
            "c8": (State.REJECTED, "unit"),
            "c9": (State.EXPIRED, "deadline"),
            "c10": (State.REJECTED, "nonce"),
            "c11": (State.REJECTED, "issued-in-future"),
            "c4": (State.SUPERSEDED, "revision"),
        }
        assert stub.writes == [(8, 4500)]


def sign_by_stranger(gateway: Gateway) -> bytes:
    body = gateway.setpoint(2.0, 12).partition(b".")[2]
    return sign(Setpoint.model_validate_json(body), new_key())


async def test_a_restart_forgets_no_revision_and_writes_nothing(tmp_path: Path, eventually: Eventually) -> None:
    async with serving(Stub()) as stub:
        config = files(tmp_path, stub.port)
        async with running(config, MemoryBroker()) as gateway:
            await eventually(lambda: len(gateway.rows()) > 4)
            old = gateway.setpoint(4.5, 7)
            await gateway.command(old)
            await eventually(lambda: len(gateway.results("c7")) == 2)
        async with running(config, MemoryBroker()) as gateway:
            await eventually(lambda: len(gateway.rows()) > 4)
            assert gateway.alive is not None
            assert [(r.term, r.revision) for r in gateway.alive.revisions] == [(1, 7)]
            await gateway.command(old)
            await gateway.command(gateway.setpoint(4.5, 7, cmd_id="same"))
            await eventually(lambda: len(gateway.results("c7")) == 1 and gateway.results("same"))
            assert gateway.results("c7")[0].reason == "nonce"
            assert gateway.results("same")[0].reason == "revision"
        assert stub.writes == [(8, 4500)]


async def test_the_lease_ends_in_the_safe_value_unless_renewed(tmp_path: Path, eventually: Eventually) -> None:
    async with serving(Stub()) as stub, running(files(tmp_path, stub.port), MemoryBroker()) as gateway:
        await eventually(lambda: len(gateway.rows()) > 4)
        await gateway.command(gateway.setpoint(4.5, 1, cmd_id="c", hold_s=0.4))
        for revision in range(2, 6):
            await asyncio.sleep(0.2)
            await gateway.command(gateway.setpoint(4.5, revision, cmd_id="c", hold_s=0.4))
        assert stub.writes == [(8, 4500)], "a renewal does not write again"
        gateway.link.cut()
        await eventually(lambda: stub.writes[1:] == [(8, 3000)], 2)
        await eventually(lambda: [r.reason for r in gateway.results("c")][-1] == "lease-ended")
        assert gateway.results("c")[-1].revision == 5


async def test_presence_is_retained_and_says_farewell(tmp_path: Path) -> None:
    broker = MemoryBroker()
    async with serving(Stub()) as stub, running(files(tmp_path, stub.port), broker) as gateway:
        assert gateway.alive is not None
        assert gateway.alive.schema_hash
        assert broker.retained(ROUTE.alive)
    assert decode(Alive, broker.retained(ROUTE.alive)[0].payload).online is False


async def test_newest_values_overtake_an_old_backlog(
    tmp_path: Path, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.presence.BEHIND_S", 0.3)
    monkeypatch.setattr("edge.presence.GLANCE_S", 0.1)
    async with serving(Stub(words={0: 500})) as stub, running(files(tmp_path, stub.port), MemoryBroker()) as gateway:
        gateway.receiver.offer = lambda record: None  # type: ignore[method-assign]
        await eventually(lambda: len(gateway.glances) > 2)
        body = gateway.glances[-1].records[0].body
        assert isinstance(body, ReadingsBody)
        assert dict(zip(body.point, body.value, strict=True)) == {0: 5.0, 2: 0.0}
        assert time.time_ns() - body.base < 1_000_000_000


async def test_a_value_that_a_server_repeats_is_one_reading(
    tmp_path: Path, eventually: Eventually, free_port: Callable[[], int]
) -> None:
    """A new subscription brings the newest value again, also to a restarted edge; its stamp gives it away."""
    async with plant(free_port()) as served:
        (tmp_path / "zone.yaml").write_text(
            f"profile: zone\nkind: opcua\nnamespace: {URI}\npoints:\n"
            "  - {point: t, node: zone.t}\n  - {point: heater, node: zone.heater}\n"
        )
        config = tmp_path / "edge.yaml"
        config.write_text(
            "edge: edge-1\nsite: demo\ngateway: gw-1\nstate: state\nlink: {kind: mqtt}\ndevices:\n"
            f"  - {{device: zone, kind: opcua, profile: zone.yaml, url: {served.url}, interval: 20 ms}}\n"
        )
        start = datetime.now(UTC)
        await served.put("heater", 5.0, start)
        broker = MemoryBroker()
        gateway = Gateway(broker)
        for life in range(1, 4):
            gateway.alive = None
            await served.put("t", float(life), start + timedelta(seconds=life))
            async with running(str(config), broker, gateway):
                await eventually(lambda life=life: (0, float(life)) in {(row[0], row[3]) for row in gateway.rows()})
                await asyncio.sleep(0.2)
        assert [row[3] for row in gateway.rows() if row[0] == 0] == [1.0, 2.0, 3.0]
        assert [row[3] for row in gateway.rows() if row[0] == 1] == [5.0]
