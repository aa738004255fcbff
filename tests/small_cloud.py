"""A cloud in miniature for tests: one tank twin, real ledger and registry, links in memory, an edge that answers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cloud.api.ports import Belief, Figures, Floats, Ints, Measured, Presence
from cloud.commands.ledger import Ledger
from cloud.commands.model import EdgeState, Revision, Told
from cloud.commands.service import Commands
from cloud.provision.plan import SourceText
from cloud.provision.registry import Registry
from wire.errors import Rejected
from wire.messages import Alive, ResultBody, Setpoint, State
from wire.points import PointId
from wire.runtime.memory import MemoryBroker, MemoryLink
from wire.signing import TrustedKey, key_id, new_key, public_text, verify
from wire.topics import GatewayRoute

NS = 1_000_000_000

TYPE = """\
type: small-tank
version: 1.0.0
states:
  h: {unit: cm, initial: 10 +/- 5}
inputs:
  v: {unit: V, from: pump, initial: 3}
dynamics:
  h: 0.1[cm/(V*s)]*v - 0.03[1/s]*h
process_noise: {h: 0.01 cm/sqrt(s)}
offsets: none
sensors:
  level: {measures: h, unit: cm, noise: 0.3 cm, max_age: 5 s}
actuators:
  pump:
    unit: V
    range: [0, 10]
    hold: 30 s
    safe: 3 V
    readback: {tolerance: 0.05 V, settle: 100 ms, dwell: 100 ms}
"""

TWIN = """\
twin: tank-1
of: small-tank@1
bind:
  level: demo/edge-tank/tank/h1
  pump: {write: demo/edge-tank/tank/pump1-set, read: demo/edge-tank/tank/pump1}
mode: act
"""

SOURCES = [SourceText("types.yaml", TYPE), SourceText("twins.yaml", TWIN)]
POINT = PointId("demo", "edge-tank", "tank", "pump1-set")
ROUTE = GatewayRoute("demo", "gw-1")


class Clock:
    """Real time that a test may push ahead."""

    def __init__(self) -> None:
        self.ahead_ns = 0

    def __call__(self) -> int:
        return time.time_ns() + self.ahead_ns

    def advance(self, seconds: float) -> None:
        self.ahead_ns += round(seconds * NS)


@dataclass
class Field:
    """What is known of the edge; the tank's pump is driven in millivolts."""

    nonce: str = "boot-1"
    online: bool = True
    heard: bool = True
    unit: str | None = "mV"
    revisions: dict[tuple[str, str], Revision] = field(default_factory=dict)

    def edge(self, source: str) -> EdgeState | None:
        if source != POINT.source or not self.heard:
            return None
        return EdgeState(ROUTE, self.nonce, self.online, 1, self.revisions)

    def device_unit(self, point: PointId) -> str | None:
        return self.unit if point == POINT else None


class Live:
    """A worker that believes what it is told."""

    def __init__(self, clock: Callable[[], int]) -> None:
        self.clock = clock
        self.level = 0.10
        self.sigma = 0.001
        self.time: int | None = None
        self.started = True
        self.alive: list[Presence] = []

    def beliefs(self, twins: Sequence[str], at: int) -> Mapping[str, Belief]:
        if not self.started:
            return {}
        seen = at - NS if self.time is None else self.time
        measured = {"level": Measured(seen, 0.103, 0), "v": Measured(seen, 3.0, 0)}
        belief = Belief(at, seen, np.array([self.level]), np.array([self.sigma]), measured, 1.1, (0.8, 1.3), 110.0, 100)
        return dict.fromkeys(twins, belief)

    def forecast(self, twin: str, times: Ints) -> tuple[Floats, Floats]:
        if not self.started:
            raise Rejected("no-estimate", twin)
        mean = np.full((len(times), 1), self.level)
        return mean, np.linspace(0.001, 0.01, len(times))[:, None]

    def figures(self) -> Figures:
        return Figures(1000, 2, {"fused": 990, "late": 8, "duplicate": 2}, 12.5, 80.0)

    def presence(self) -> Sequence[Presence]:
        return self.alive


def alive(name: str, *, online: bool, at: int) -> Presence:
    """An Alive as the worker keeps it."""
    return Presence(Alive(site="demo", name=name, role="edge", online=online, at=at, nonce="n", backlog=7), at)


class SoftEdge:
    """Answers signed setpoints as an edge would, by calling ``on_results``; counts what it would have written."""

    def __init__(self, link: MemoryLink, trust: TrustedKey, field_: Field) -> None:
        self.writes: list[Setpoint] = []
        self.received: list[Setpoint] = []
        self.states: list[State] = [State.ACCEPTED, State.VERIFIED]
        self.reason = ""
        self.factor = 1.0
        self.silent = False
        self._inbox = link.subscribe(ROUTE.setpoint("edge-tank"), qos=1)
        self._trust = trust
        self._field = field_
        self._commands: Commands | None = None

    async def run(self, commands: Commands) -> None:
        highest = -1
        async for delivery in self._inbox:
            assert not delivery.retain
            setpoint = verify(delivery.payload, [self._trust])
            assert setpoint.revision > highest, "revisions must grow"
            highest = setpoint.revision
            self.received.append(setpoint)
            if self.silent or setpoint.nonce != self._field.nonce:
                continue
            known = any(write.cmd_id == setpoint.cmd_id for write in self.writes)
            if State.ACCEPTED in self.states and not known:
                self.writes.append(setpoint)
            await commands.on_results([self.word(setpoint, state) for state in self.states])

    def word(self, setpoint: Setpoint, state: State) -> Told:
        """What the edge says, as it arrives."""
        return Told(f"{setpoint.site}/{setpoint.edge}", self._result(setpoint, state))

    def _result(self, setpoint: Setpoint, state: State) -> ResultBody:
        done = state.final and state is not State.REJECTED
        return ResultBody(
            cmd_id=setpoint.cmd_id,
            device=setpoint.device,
            point=setpoint.point,
            state=state,
            reason=self.reason,
            at=time.time_ns(),
            term=setpoint.term,
            revision=setpoint.revision,
            unit=setpoint.unit,
            value=setpoint.value if done else None,
            readback=setpoint.value * self.factor if done else None,
        )


@dataclass
class SmallCloud:
    """Everything put together."""

    clock: Clock
    field: Field
    live: Live
    broker: MemoryBroker
    edge: SoftEdge
    ledger: Ledger
    registry: Registry
    commands: Commands


@asynccontextmanager
async def small_cloud(folder: Path, *, answering: bool = True, attending: bool = True) -> AsyncIterator[SmallCloud]:
    """Start it on the files in ``folder``; a second one on the same folder finds what the first left there."""
    clock, field_, broker, key = Clock(), Field(), MemoryBroker(), new_key()
    link, edge_link = MemoryLink(broker, "cloud"), MemoryLink(broker, "edge")
    trust = TrustedKey(kid=key_id(key), public_key=public_text(key), points=("demo/*/*/*",))
    edge = SoftEdge(edge_link, trust, field_)
    edge.silent = not answering
    async with AsyncExitStack() as stack:
        registry = await stack.enter_async_context(Registry(folder / "registry.db", now=clock))
        await registry.apply(SOURCES)
        ledger = await stack.enter_async_context(Ledger(folder / "ledger.db"))
        commands = Commands(ledger, link, registry, field_, key=key, kid=key_id(key), now=clock)
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(link.run()), tasks.create_task(edge_link.run())]
            await link.connected()
            await edge_link.connected()
            running.append(tasks.create_task(edge.run(commands)))
            if attending:
                running.append(tasks.create_task(commands.run()))
            yield SmallCloud(clock, field_, Live(clock), broker, edge, ledger, registry, commands)
            for task in running:
                task.cancel()
