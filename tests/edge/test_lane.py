"""A lane writes what it is told, proves it by the read-back, and drives the safe value when nobody renews."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from edge.config import Write
from edge.lane import Lane, Outcome
from wire.errors import Rejected, Unavailable
from wire.messages import Setpoint, State

WRITE = Write.model_validate_json(
    '{"range": [0, 10], "safe": 1.5, "tolerance": 0.1, "settle": "150 ms", "dwell": "50 ms"}'
)


@dataclass
class Machine:
    """A device whose behaviour a test chooses; ``written`` is everything that ever reached it."""

    online: bool = True
    follow: Callable[[float], float] = lambda value: value
    fault: Exception | None = None
    silent: bool = False
    written: list[float] = field(default_factory=list)
    value: float = 0.0

    async def write(self, point: int, value: float) -> None:
        assert point == 4
        if isinstance(self.fault, Rejected):
            raise self.fault
        self.written.append(value)
        if self.fault is not None:
            raise self.fault
        self.value = self.follow(value)

    async def fetch(self, point: int) -> float | None:
        assert point in (4, 5)
        if self.silent:
            raise Unavailable("away")
        return self.value


def setpoint(value: float, cmd_id: str = "c1", hold_s: float = 60.0) -> Setpoint:
    return Setpoint(
        kid="k", site="s", edge="e", device="d", point="p", value=value, unit="V", cmd_id=cmd_id, issuer="me", slot=8,
        term=1, revision=1, iat=0, exp=0, hold_s=hold_s, nonce="n", reason="",
    )  # fmt: skip


@asynccontextmanager
async def running(machine: Machine, write: Write = WRITE) -> AsyncIterator[tuple[Lane, list[Outcome]]]:
    said: list[Outcome] = []

    async def report(outcome: Outcome) -> None:
        said.append(outcome)

    lane = Lane(machine, 4, 5, write, report, time.monotonic)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(lane.run())
        yield lane, said
        task.cancel()


async def ended(said: list[Outcome], count: int = 1) -> Outcome:
    async with asyncio.timeout(3):
        while len(said) < count:
            await asyncio.sleep(0.005)
    return said[count - 1]


async def test_what_was_written_and_read_back_is_verified() -> None:
    machine = Machine()
    async with running(machine) as (lane, said):
        await lane.submit(setpoint(3.0), 5.0)
        assert await ended(said) == Outcome("c1", State.VERIFIED, "readback", 3.0, 3.0)
        assert machine.written == [3.0]


@pytest.mark.parametrize(
    ("machine", "state", "reason", "readback"),
    [
        (Machine(follow=lambda value: min(value, 2.0)), State.MISMATCH, "readback", 2.0),
        (Machine(follow=lambda value: -value), State.MISMATCH, "readback", -3.0),
        (Machine(follow=lambda value: 0.0), State.MISMATCH, "readback", 0.0),
        (Machine(silent=True), State.UNKNOWN, "no-readback", None),
        (Machine(fault=Rejected("device/2")), State.FAILED, "device/2", None),
        (Machine(fault=Unavailable("gone")), State.UNKNOWN, "no-answer", None),
        (Machine(online=False), State.FAILED, "device-away", None),
    ],
    ids=["clamps", "inverts", "ignores", "no-readback", "refuses", "no-answer", "away"],
)
async def test_a_device_that_does_otherwise_is_found_out(
    machine: Machine, state: State, reason: str, readback: float | None
) -> None:
    async with running(machine) as (lane, said):
        await lane.submit(setpoint(3.0), 5.0)
        outcome = await ended(said)
        assert (outcome.state, outcome.reason, outcome.readback) == (state, reason, readback)


async def test_a_slow_device_has_until_it_should_have_settled() -> None:
    machine = Machine(follow=lambda value: 0.0)
    async with running(machine) as (lane, said):
        await lane.submit(setpoint(3.0), 5.0)
        await asyncio.sleep(0.08)
        machine.value = 3.05
        assert (await ended(said)).state is State.VERIFIED


async def test_a_value_that_does_not_stay_is_a_mismatch() -> None:
    machine = Machine()
    write = WRITE.model_copy(update={"dwell": 0.4})
    async with running(machine, write) as (lane, said):
        await lane.submit(setpoint(3.0), 5.0)
        await asyncio.sleep(0.2)
        machine.value = 0.0
        assert (await ended(said)).state is State.MISMATCH


async def test_past_its_deadline_nothing_is_written() -> None:
    machine = Machine()
    async with running(machine) as (lane, said):
        await lane.submit(setpoint(3.0), -0.001)
        assert (await ended(said)).state is State.EXPIRED
        assert machine.written == []


async def test_the_newest_setpoint_wins_and_each_has_one_end() -> None:
    machine = Machine()
    async with running(machine) as (lane, said):
        await lane.submit(setpoint(3.0, "c1"), 5.0)
        await asyncio.sleep(0.03)
        for n in range(2, 50):
            await lane.submit(setpoint(3.0 + n / 100, f"c{n}"), 5.0)
        await ended(said, 49)
        ends = {outcome.cmd_id: outcome.state for outcome in said}
        assert len(ends) == len(said) == 49
        assert ends.pop("c49") is State.VERIFIED
        assert set(ends.values()) == {State.SUPERSEDED}
        assert machine.written == [3.0, 3.49]


async def test_without_renewal_the_safe_value_is_written() -> None:
    machine = Machine()
    async with running(machine) as (lane, said):
        await lane.submit(setpoint(3.0, hold_s=0.3), 5.0)
        await ended(said)
        for _ in range(4):
            await asyncio.sleep(0.15)
            lane.renew(0.3)
        assert machine.written == [3.0], "renewed in time"
        started = time.monotonic()
        assert await ended(said, 2) == Outcome("c1", State.ABORTED, "lease-ended", 1.5, 1.5)
        assert 0.2 < time.monotonic() - started < 0.4
        assert machine.written == [3.0, 1.5]
        await asyncio.sleep(0.2)
        assert machine.written == [3.0, 1.5], "once"


async def test_the_lease_ends_even_if_nobody_knows_whether_it_was_written() -> None:
    machine = Machine(fault=Unavailable("gone"))
    async with running(machine) as (lane, said):
        await lane.submit(setpoint(3.0, hold_s=0.1), 5.0)
        assert (await ended(said)).state is State.UNKNOWN
        await asyncio.sleep(0.15)
        machine.fault = None
        assert (await ended(said, 2)).reason == "lease-ended"
        assert machine.value == 1.5


async def test_a_lane_that_starts_writes_nothing() -> None:
    machine = Machine()
    async with running(machine) as (_, said):
        await asyncio.sleep(0.2)
    assert (machine.written, said) == ([], [])


async def test_learning_asks_once_and_writes_nothing() -> None:
    machine = Machine(value=2.5)
    async with running(machine) as (lane, _):
        await lane.learn()
        assert lane.last().value == 2.5
        assert machine.written == []
