"""R1.2: the same plant over Modbus, OPC UA and MQTT gives the same stream through the edge's own drivers.

Three copies of one seeded tank stand behind three real servers. Every copy moves by the same ticks; what the drivers
deliver is compared sample by sample.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

import pytest

from edge.config import Profile
from edge.drivers.base import Driver, Samples
from simulators.assembly import assemble
from simulators.station import Station
from wire import settings
from wire.errors import Rejected, Unavailable
from wire.runtime import files, plugins

CONFIGS = Path(__file__).parents[2] / "configs"
TICK = 0.02
TICKS = 100
SENSORS = ("h1", "h2", "pump1", "pump2")
STEP = {"h1": 25.0 / 4095, "h2": 25.0 / 4095, "pump1": 10.0 / 4095, "pump2": 10.0 / 4095}
"""One quantisation step of the tank's converters."""

Stream = Mapping[str, list[tuple[int, float]]]
"""By point: (source stamp or 0, value), in order of time."""


class Broker(Protocol):
    port: int


def station(kind: str, serve: str) -> Station:
    text = f"""
scenario: same-plant
seed: 11
devices:
  - {{device: tank, plant: tank, profile: ../profiles/tank-{kind}.yaml, serve: {serve}}}
"""
    return assemble(settings.parse_one(text, str(CONFIGS / "scenarios" / "test.yaml")), files.read_text)[1][0]


def driver(kind: str, **config: Any) -> tuple[Driver, list[str]]:
    profile = files.load(CONFIGS / "profiles" / f"tank-{kind}.yaml", Profile)
    module = plugins.load("edge.drivers", kind)
    names = [point.point for point in profile.points]
    made: Driver = module.Driver(
        module.Config.model_validate(config), profile.points, name="tank", polled=range(len(names))
    )
    return made, names


@asynccontextmanager
async def running(tank: Station) -> AsyncIterator[None]:
    task = asyncio.create_task(tank.server.serve(), name="serve")
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def entered(stack: AsyncExitStack, make: Callable[[], tuple[Driver, list[str]]]) -> tuple[Driver, list[str]]:
    """A connected driver; the server may still be opening its port."""
    for _ in range(100):
        made, names = make()
        try:
            return await stack.enter_async_context(made), names
        except Unavailable:
            await asyncio.sleep(0.05)
    raise AssertionError("the device never answered")


class Listener:
    """Gathers all that a driver delivers, good rows only."""

    def __init__(self, made: Driver, names: list[str]) -> None:
        self.driver = made
        self.names = names
        self.stream: dict[str, list[tuple[int, float]]] = defaultdict(list)

    def take(self, samples: Samples) -> None:
        for point, stamp, value, quality in zip(
            samples.point, samples.time, samples.value, samples.quality, strict=True
        ):
            if quality == 0:
                self.stream[self.names[point]].append((stamp, value))

    async def listen(self) -> None:
        while True:
            self.take(await self.driver.read())


async def record(
    tank: Station, make: Callable[[], tuple[Driver, list[str]]], eventually: Callable[..., Awaitable[None]]
) -> tuple[Stream, list[float]]:
    """Move the tank tick by tick with one setpoint half way; what the driver saw, and the read-back after it."""
    start = time.time_ns() // 1000 * 1000
    tank.advance(0, TICK, start)
    async with running(tank), AsyncExitStack() as stack:
        made, names = await entered(stack, make)
        listener = Listener(made, names)
        listening = asyncio.create_task(listener.listen(), name="listen") if made.pushes else None
        if listening is not None:
            await asyncio.sleep(0.3)  # a subscriber has missed nothing once its first values have come
        for tick in range(1, TICKS + 1):
            if tick == TICKS // 2:
                await made.write(names.index("pump1-set"), 3.3)
                await eventually(lambda: tank.plant.settings["pump1-set"] == pytest.approx(3.3, abs=5e-4))
                tank.plant.actuate("pump1-set", 3.3)  # the same bit pattern whatever the wire's resolution
            tank.advance(tick, TICK, start + round(tick * TICK * 1e9))
            if listening is None:
                listener.take(await made.read())
            else:
                await asyncio.sleep(TICK)
        if listening is not None:
            await eventually(
                lambda: listener.stream["h1"] and listener.stream["h1"][-1][0] == start + TICKS * 20_000_000
            )
            listening.cancel()
            with suppress(asyncio.CancelledError):
                await listening
        back = await made.fetch(names.index("pump1-set")) if made.pushes is False else None
        with pytest.raises(Rejected):
            await made.write(names.index("h1"), 1.0)
    offset = {name: sorted(rows) for name, rows in listener.stream.items()}
    shifted = {name: [(stamp - start if stamp else 0, value) for stamp, value in rows] for name, rows in offset.items()}
    return shifted if listening is not None else dict(listener.stream), back.value if back else []


def opcua(port: int) -> tuple[str, Callable[[], tuple[Driver, list[str]]]]:
    return f"{{kind: opcua, port: {port}}}", lambda: driver("opcua", url=f"opc.tcp://127.0.0.1:{port}")


def mqtt(port: int) -> tuple[str, Callable[[], tuple[Driver, list[str]]]]:
    broker = {"kind": "mqtt", "host": "127.0.0.1", "port": port}
    return f"{{kind: mqtt, client: plant, broker: {broker}}}", lambda: driver("mqtt", broker=broker)


@pytest.mark.parametrize("kind", ["opcua", "mqtt"])
async def test_same_plant_same_stream(
    kind: str,
    free_port: Callable[[], int],
    eventually: Callable[..., Awaitable[None]],
    request: pytest.FixtureRequest,
) -> None:
    port = free_port()
    serve = f"{{kind: modbus, port: {port}}}"
    asked, back = await record(
        station("modbus", serve), lambda: driver("modbus", host="127.0.0.1", port=port), eventually
    )
    assert back == [pytest.approx(3.3)]
    serve, make = mqtt(request.getfixturevalue("mosquitto").port) if kind == "mqtt" else opcua(free_port())
    pushed, _ = await record(station(kind, serve), make, eventually)
    for name in SENSORS:
        # Modbus has no stamps: its k-th answer was asked for at tick k
        wanted = {round(k * TICK * 1e9): value for k, (_, value) in enumerate(asked[name], 1)}
        assert len(wanted) == TICKS
        got = {stamp: value for stamp, value in pushed[name] if stamp > 0}
        assert set(got) == set(wanted), f"{name}: other samples"
        worst = max(abs(got[stamp] - wanted[stamp]) for stamp in wanted)
        assert worst <= STEP[name], f"{name}: {worst} apart"
