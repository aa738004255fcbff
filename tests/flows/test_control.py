"""The level controller on the real loop: estimates in, signed setpoints down, the level where it was asked to be."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from simulators.demo import stage, story
from simulators.demo.children import Children, run_once
from simulators.demo.client import Client
from wire.errors import Rejected

CONFIGS = Path(__file__).parents[2] / "configs"
CONTROL = """
control:
  - control: level-1
    twin: tank-1
    state: h1
    actuator: pump1
    target: 13.4 cm
    gain: 4 V/cm
    integral: 30 s
    period: 500 ms
    max_sigma: 0.5 cm
"""


def configs(folder: Path) -> Path:
    """The demo's configuration with a controller, and the tank's twin in mode ``act``."""
    made = folder / "configs"
    shutil.copytree(CONFIGS, made)
    cloud, twins = made / "demo" / "cloud.yaml", made / "twins" / "demo.yaml"
    cloud.write_text(cloud.read_text() + CONTROL)
    twins.write_text(twins.read_text().replace("of: quadruple-tank@1\n", "of: quadruple-tank@1\nmode: act\n"))
    return made


@pytest.mark.flow
@pytest.mark.timeout(110)
@pytest.mark.deadline(100)
async def test_the_level_goes_where_the_controller_was_told(
    tmp_path: Path, eventually: Callable[..., Awaitable[None]], server_program: Callable[[str], str]
) -> None:
    server_program("mosquitto")
    scene = stage.prepare(tmp_path / "state", configs(tmp_path), embedded=False)
    children = Children(scene.state)
    async with asyncio.TaskGroup() as tasks:
        try:
            await run_once(scene.make_keys())
            programs = [scene.broker(), scene.cloud(), scene.gateway(), scene.simulators(), scene.edges()[0]]
            children.start(tasks, *programs)
            async with Client(scene.url, scene.token_file.read_text().strip()) as client:
                await story.until_answering(client)
                await run_once(scene.apply())

                async def level() -> float:
                    return (await client.now("tank-1")).states["h1"].value

                async def risen() -> bool:
                    stats = await client.stats()
                    return stats.setpoints.get("verified", 0) + stats.setpoints.get("superseded", 0) >= 3 and (
                        await level() > 13.1
                    )

                await eventually(lambda: believed(client), 30)
                begun = await level()
                await eventually(risen, 50)
                setpoints = (await client.stats()).setpoints
        finally:
            await children.stop_all(3, last=stage.BROKER)
    assert begun < 13.0
    assert setpoints.get("mismatch", 0) == setpoints.get("failed", 0) == 0


async def believed(client: Client) -> bool:
    """Whether the twin has an estimate yet."""
    try:
        await client.now("tank-1")
    except Rejected:
        return False
    return True
