"""The whole loop with InfluxDB as its history, the worker killed on the way: every committed reading is there once."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.parse import quote

import pytest

from simulators.demo import stage, story
from simulators.demo.children import Children, run_once
from simulators.demo.client import Client
from tests.history_servers import ask, influxdb
from wire.runtime.outbox import Outbox

CONFIGS = Path(__file__).parents[2] / "configs"


def configs(folder: Path, port: int) -> Path:
    """The demo's configuration, its history in InfluxDB."""
    made = folder / "configs"
    shutil.copytree(CONFIGS, made)
    cloud = made / "demo" / "cloud.yaml"
    text = cloud.read_text()
    embedded = "history:\n  kind: sqlite"
    assert embedded in text
    cloud.write_text(
        text.replace(embedded, f"history: {{kind: influx, url: 'http://127.0.0.1:{port}', bucket: twinline}}")
    )
    return made


def counted(port: int, question: str) -> int:
    """The sum of the first field over all series of an InfluxQL answer."""
    answer = json.loads(ask(port, "GET", f"/query?db=twinline&q={quote(question)}"))
    series = answer["results"][0].get("series", [])
    return sum(int(row[1]) for each in series for row in each["values"])


@pytest.mark.flow
@pytest.mark.timeout(110)
@pytest.mark.deadline(100)
async def test_every_reading_is_in_influx_once(tmp_path: Path, eventually: Callable[..., Awaitable[None]]) -> None:
    with influxdb(tmp_path) as port:
        ask(port, "POST", f"/query?q={quote('CREATE DATABASE twinline')}")
        scene = stage.prepare(tmp_path / "state", configs(tmp_path, port), embedded=False)
        children = Children(scene.state)
        async with asyncio.TaskGroup() as tasks:
            try:
                await run_once(scene.make_keys())
                programs = [scene.broker(), scene.cloud(), scene.gateway(), scene.simulators(), *scene.edges()]
                children.start(tasks, *programs)
                async with Client(scene.url, scene.token_file.read_text().strip()) as client:
                    await story.until_answering(client)
                    await run_once(scene.apply())
                    await story.until_alive(client, story.Board())
                    await asyncio.sleep(2)
                    os.kill(json.loads((scene.state / "processes.json").read_text())["cloud"], signal.SIGKILL)
                    await asyncio.sleep(4)
                    await children.stop(stage.SIMULATORS)
                    await story.drained([scene.outbox(name) for name in (*stage.EDGES, stage.GATEWAY)], 30)
                    await children.stop(*stage.EDGES)
                    totals = [Outbox.inspect(scene.outbox(name)) for name in stage.EDGES]
                    committed = sum(each.committed_readings for each in totals)

                    async def applied() -> bool:
                        return (await client.stats()).readings_applied == committed

                    await eventually(applied, 20)
                    history = await client.history("tank-1", time.time_ns() - 20_000_000_000, time.time_ns())
            finally:
                await children.stop_all(3, last=stage.BROKER)
        assert children.restarts == 1
        assert committed > 300
        assert counted(port, "SELECT count(quality) FROM reading") == committed
        assert len(history.time) > 3
        assert set(history.states) >= {"h1", "h2", "h3", "h4"}
