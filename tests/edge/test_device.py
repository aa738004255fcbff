"""The patient frame around a naive driver: silence, loss and return are each said once."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import pytest

from edge.config import Device, Point
from edge.device import DeviceAgent, Sink
from edge.drivers.base import Samples
from edge.stamps import Stamps
from wire.errors import Unavailable
from wire.quality import Quality
from wire.runtime.observe import Counters, Health


class World:
    """What the driver meets."""

    def __init__(self) -> None:
        self.present = True
        self.waiting: asyncio.Queue[Samples | Exception] = asyncio.Queue()
        self.sessions = 0
        self.open = 0
        self.slow_s = 0.0
        self.farewell: Exception | None = None
        """Raised when a session is left."""


def module(world: World, pushing: bool) -> Any:
    class Driver:
        pushes = pushing

        def __init__(self, *_: object) -> None:
            pass

        async def __aenter__(self) -> Self:
            if not world.present:
                raise Unavailable("not there")
            world.sessions += 1
            world.open += 1
            return self

        async def __aexit__(self, *exc: object) -> None:
            world.open -= 1
            if world.farewell is not None:
                raise world.farewell

        async def read(self) -> Samples:
            if not pushing:
                await asyncio.sleep(world.slow_s)
                return Samples([0], [0], [1.0], [0])
            item = await world.waiting.get()
            if isinstance(item, Exception):
                raise item
            return item

        async def fetch(self, point: int) -> Samples:
            return Samples([point], [0], [4.0], [0 if point == 0 else Quality.BAD_DEVICE])

    return SimpleNamespace(Driver=Driver)


@asynccontextmanager
async def running(
    world: World, pushing: bool, period: float
) -> AsyncIterator[tuple[DeviceAgent, list[tuple[int, int]]]]:
    rows: list[tuple[int, int]] = []
    begun: list[Sequence[int]] = []

    async def add(offset: int, samples: Samples) -> None:
        rows.extend((offset + point, code) for point, code in zip(samples.point, samples.quality, strict=True))

    device = Device.model_validate({"device": "d", "kind": "x", "profile": "p", "period": f"{period * 1000} ms"})
    points = [Point(point="a"), Point(point="b"), Point(point="c", read=False)]
    agent = DeviceAgent(
        device, points, module(world, pushing), 10, Sink(add, begun.append), Counters(),
        Health(logging.getLogger("twinline.test")), source="s/e", slot=(0, 1), clock=time.monotonic,
    )  # fmt: skip
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(agent.run())
        await asyncio.sleep(0.05)
        yield agent, rows
        task.cancel()
    assert world.open == 0, "left as often as entered"


async def test_a_silent_source_is_stale_once_until_it_speaks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.device.STALE_S", 0.05)
    world = World()
    async with running(world, pushing=True, period=0.01) as (_, rows):
        await asyncio.sleep(0.4)
        assert rows == [(10, Quality.BAD_STALE), (11, Quality.BAD_STALE)]
        world.waiting.put_nowait(Samples([0], [0], [1.0], [0]))
        await asyncio.sleep(0.3)
        assert rows[2:] == [(10, 0), (10, Quality.BAD_STALE), (11, Quality.BAD_STALE)]


async def test_an_empty_answer_says_that_the_source_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.device.STALE_S", 0.2)
    world = World()
    async with running(world, pushing=True, period=0.001) as (_, rows):
        for _ in range(20):
            world.waiting.put_nowait(Samples())
            await asyncio.sleep(0.03)
        assert rows == []


async def test_a_lost_device_is_entered_again(eventually: Callable[..., Any]) -> None:
    world = World()
    async with running(world, pushing=True, period=1) as (agent, rows):
        world.present = False
        world.waiting.put_nowait(Unavailable("cut"))
        await eventually(lambda: not agent.online)
        with pytest.raises(Unavailable):
            await agent.fetch(0)
        await asyncio.sleep(0.3)
        assert rows == [(10, Quality.BAD_CONNECTION), (11, Quality.BAD_CONNECTION)]
        world.present = True
        await eventually(lambda: agent.online, 5)
        assert world.sessions == 2
        assert await agent.fetch(0) == 4.0
        assert await agent.fetch(1) is None


@pytest.mark.deadline(5)
@pytest.mark.parametrize("pushing", [True, False])
async def test_a_device_that_hangs_while_it_is_left_does_not_keep_the_agent(pushing: bool) -> None:
    world = World()
    world.farewell = Unavailable("no answer to the farewell")
    async with running(world, pushing, period=0.01) as (_, rows):
        pass
    assert world.sessions == 1
    assert Quality.BAD_CONNECTION not in {code for _, code in rows}


async def test_a_slow_device_is_polled_without_overlap_or_burst() -> None:
    world = World()
    world.slow_s = 0.05
    async with running(world, pushing=False, period=0.02) as (agent, rows):
        await asyncio.sleep(0.5)
        assert 7 <= len(rows) <= 11
        assert agent._counters.reasons["missed-poll"] >= 10


def test_stamps_survive_a_process_and_not_another_schema(tmp_path: Path) -> None:
    file = tmp_path / "stamps.bin"
    with Stamps(file, "one", 3) as stamps:
        stamps.set(1, 77)
    with Stamps(file, "one", 3) as stamps:
        assert [stamps.get(point) for point in range(3)] == [0, 77, 0]
    with Stamps(file, "two", 3) as stamps:
        assert stamps.get(1) == 0
