"""The controller in its loop: only in mode act, only on a good estimate, and never in the way of people."""

from __future__ import annotations

from pathlib import Path

from cloud.commands.model import Order
from cloud.control.runner import Controller
from tests.cloud.control.test_level import config
from tests.small_cloud import NS, SOURCES, SmallCloud, small_cloud
from wire.messages import State


def controller(cloud: SmallCloud) -> Controller:
    return Controller(config(), cloud.registry, cloud.live, cloud.commands, now=cloud.clock)


async def finish(cloud: SmallCloud) -> float:
    """Wait for the newest order's end; returns its value in V."""
    newest = await cloud.commands.newest()
    assert newest is not None
    entry = await cloud.commands.wait(newest.command.cmd_id, 10)
    assert entry.state is State.VERIFIED
    return entry.command.value


async def test_it_orders_what_the_law_says_and_keeps_still_inside_the_deadband(tmp_path: Path) -> None:
    async with small_cloud(tmp_path) as cloud:
        loop = controller(cloud)
        await loop.look()
        assert await finish(cloud) == 3.0
        cloud.clock.advance(5)
        await loop.look()
        raised = await finish(cloud)
        assert raised > 3.0
        written = len(cloud.edge.writes)
        cloud.live.level = 0.2
        await loop.look()
        entry = await cloud.commands.newest()
        assert entry is not None
        await cloud.commands.wait(entry.command.cmd_id, 10)
        still = len(cloud.edge.writes)
        assert still > written
        for _ in range(3):
            await loop.look()
        assert len(cloud.edge.writes) == still


async def test_mode_observe_writes_nothing(tmp_path: Path) -> None:
    async with small_cloud(tmp_path) as cloud:
        await cloud.registry.apply([SOURCES[1]._replace(text=SOURCES[1].text.replace("mode: act", "mode: observe"))])
        await controller(cloud).look()
        assert await cloud.commands.newest() is None


async def test_a_stale_or_uncertain_estimate_blocks_and_lets_go(tmp_path: Path) -> None:
    async with small_cloud(tmp_path) as cloud:
        loop = controller(cloud)
        await loop.look()
        await finish(cloud)
        newest = await cloud.commands.newest()
        assert newest is not None
        cloud.live.sigma = 0.02
        await loop.look()
        entry = await cloud.commands.get(newest.command.cmd_id)
        assert not entry.standing
        assert "uncertain" in entry.steps[-1].reason
        cloud.live.sigma = 0.001
        cloud.live.time = cloud.clock() - 6 * NS
        await loop.look()
        assert len(cloud.edge.writes) == 1


async def test_a_person_s_order_stands_above_the_controller_s(tmp_path: Path) -> None:
    async with small_cloud(tmp_path) as cloud:
        loop = controller(cloud)
        await loop.look()
        await finish(cloud)
        await cloud.commands.request(Order("tank-1", "pump", 7.0))
        assert await finish(cloud) == 7.0
        for _ in range(5):
            cloud.clock.advance(1)
            await loop.look()
        assert len(cloud.edge.writes) == 2
        cloud.clock.advance(40)
        cloud.live.time = None
        await loop.look()
        await loop.look()
        counts = await cloud.commands.counts()
        assert counts.get("rejected", 0) <= 1
