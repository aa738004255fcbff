"""kill -9 of edge, gateway, worker and broker, one after another, while readings flow: nothing is lost or counted
twice, and every twin ends up believing, to the last bit, what an undisturbed replay of the same readings says."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from cloud.bank import Bank
from cloud.checkpoint.sqlite import SqliteCheckpoint
from cloud.history.sqlite import SqliteHistory
from cloud.provision.registry import Registry
from cloud.replay import replay
from simulators.demo import report, stage, story
from simulators.demo.children import Children, run_once
from simulators.demo.client import Client
from wire.topics import SHARDS

CONFIGS = Path(__file__).parents[2] / "configs"
VICTIMS = ("edge-tank", "gateway", "cloud", "broker", "edge-car", "cloud", "edge-zone", "gateway")
BETWEEN_S = 2.5


def pid_of(scene: stage.Stage, name: str) -> int:
    return int(json.loads((scene.state / "processes.json").read_text())[name])


async def kill_each(scene: stage.Stage) -> None:
    """SIGKILL one after another, each once it has come back since its last death."""
    for victim in VICTIMS:
        os.kill(pid_of(scene, victim), signal.SIGKILL)
        await asyncio.sleep(BETWEEN_S)


@pytest.mark.flow
@pytest.mark.timeout(150)
@pytest.mark.deadline(140)
async def test_every_process_may_die_and_the_posterior_is_the_undisturbed_one(tmp_path: Path) -> None:
    scene = stage.prepare(tmp_path, CONFIGS, embedded=False)
    children = Children(scene.state)
    async with asyncio.TaskGroup() as tasks:
        try:
            await run_once(scene.make_keys())
            children.start(tasks, scene.broker(), scene.cloud())
            async with Client(scene.url, scene.token_file.read_text().strip()) as client:
                await story.until_answering(client)
                await run_once(scene.apply())
                # Twins first, plants later: so the stored readings are the whole life of every twin.
                children.start(tasks, scene.simulators(), *scene.edges(), scene.gateway())
                await story.until_alive(client, story.Board())
                half_ns = time.time_ns()
                await asyncio.sleep(3)
                await kill_each(scene)
                await children.stop(stage.SIMULATORS)
                await story.drained([scene.outbox(name) for name in (*stage.EDGES, stage.GATEWAY)], 40)
                await children.stop(*stage.EDGES)
                result = await report.collect(scene, client, half_ns, children.restarts)
        finally:
            await children.stop_all(3, last=stage.BROKER)
    assert children.restarts == len(VICTIMS)
    assert result.readings_committed > 500
    assert (result.lost, result.duplicates) == (0, 0), result
    assert result.outcomes.get("late", 0) == 0
    await assert_bit_equal(scene)


async def assert_bit_equal(scene: stage.Stage) -> None:
    """The saved posterior of every twin against the replay of its stored readings."""
    async with Registry(scene.state / "cloud" / "registry.db", now=time.time_ns) as registry:
        twins = dict(registry.twins())
    async with SqliteCheckpoint(scene.state / "cloud" / "checkpoint.db") as checkpoint:
        claims = await checkpoint.claim(range(SHARDS))
    saved = Bank()
    handles = {name: saved.adopt(twin) for name, twin in twins.items()}
    assert saved.restore({key: blob for claim in claims for key, blob in claim.blobs.items()}) == []
    async with SqliteHistory(scene.history) as history:
        replayed = await replay(history, twins)
    for name, handle in handles.items():
        time_live, x_live, p_live = saved.state(handle)
        time_replayed, x_replayed, p_replayed = replayed.state(handle)
        assert time_live == time_replayed, name
        assert np.array_equal(x_live, x_replayed), f"{name}: {x_live - x_replayed}"
        assert np.array_equal(p_live, p_replayed), name
        updates = replayed.now([handle])[0].updates
        assert updates > 20, f"{name} fused only {updates} samples"
