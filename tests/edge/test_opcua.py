"""The OPC UA driver against a real asyncua server."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest
from asyncua import Server, ua

from edge.drivers.opcua import Address, Config, Driver
from wire.errors import Rejected, Unavailable
from wire.quality import Quality

URI = "urn:twinline:test"
START = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
START_NS = 1767323045678901000


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.getLogger("asyncua").setLevel(logging.CRITICAL)
    yield
    logging.getLogger("asyncua").setLevel(logging.NOTSET)


class Plant:
    """A server with four nodes."""

    def __init__(self, port: int, before: int = 0) -> None:
        self.url = f"opc.tcp://127.0.0.1:{port}"
        self._before = before

    async def open(self) -> None:
        self.server = Server()
        await self.server.init()
        self.server.set_endpoint(self.url)
        for index in range(self._before):
            await self.server.register_namespace(f"urn:other:{index}")
        self._ns = await self.server.register_namespace(URI)
        self.nodes = {}
        for name, kind in (("t", "Double"), ("heater", "Float"), ("count", "UInt16"), ("on", "Boolean")):
            variant = ua.Variant(False if kind == "Boolean" else 0, ua.VariantType[kind])
            if kind in ("Double", "Float"):
                variant = ua.Variant(0.0, ua.VariantType[kind])
            node = await self.server.nodes.objects.add_variable(ua.NodeId(f"zone.{name}", self._ns), name, variant)
            await node.set_writable()
            self.nodes[name] = node
        await self.server.start()

    async def put(self, name: str, value: object, time: datetime, status: int = ua.StatusCodes.Good) -> None:
        kind = await self.nodes[name].read_data_type_as_variant_type()
        data = ua.DataValue(ua.Variant(value, kind), ua.StatusCode(status), SourceTimestamp=time)
        await self.server.write_attribute_value(self.nodes[name].nodeid, data)


@asynccontextmanager
async def plant(port: int, before: int = 0) -> AsyncIterator[Plant]:
    served = Plant(port, before)
    await served.open()
    try:
        yield served
    finally:
        await served.server.stop()
        # asyncua leaves the tasks of sessions behind that were open when it stopped
        left = [task for task in asyncio.all_tasks() if "asyncua/server" in repr(task)]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)


POINTS = [
    Address(node="zone.t", namespace=URI, scale=2.0, offset=1.0),
    Address(node="zone.heater", namespace=URI),
    Address(node="s=zone.count", namespace=URI, type="int"),
    Address(node="zone.on", namespace=URI, type="bool"),
]


def config(served: Plant) -> Config:
    return Config.model_validate({"url": served.url, "interval": "20 ms", "timeout": "2 s"})


async def collect(driver: Driver, want: int, rows: list[tuple[int, int, float, int]]) -> None:
    async with asyncio.timeout(5):
        while len(rows) < want:
            samples = await driver.read()
            rows += zip(samples.point, samples.time, samples.value, samples.quality, strict=True)


async def test_values_come_with_the_sources_own_time_and_status(free_port: Callable[[], int]) -> None:
    async with plant(free_port()) as served:
        await served.put("t", 20.5, START)
        async with Driver(config(served), POINTS, polled=[0]) as driver:
            rows: list[tuple[int, int, float, int]] = []
            await collect(driver, 1, rows)
            steps = [
                (21.0, 0),
                (21.0, 0),
                (22.0, ua.StatusCodes.UncertainLastUsableValue),
                (23.0, ua.StatusCodes.BadSensorFailure),
                (24.0, ua.StatusCodes.BadNoCommunication),
            ]
            for step, (value, status) in enumerate(steps, 1):
                await served.put("t", value, START + timedelta(seconds=step), status)
                await collect(driver, step + 1, rows)
            second = 1_000_000_000
            assert rows == [
                (0, START_NS, 42.0, Quality.GOOD),
                (0, START_NS + second, 43.0, Quality.GOOD),
                (0, START_NS + 2 * second, 43.0, Quality.GOOD),
                (0, START_NS + 3 * second, 45.0, Quality.UNCERTAIN_SUBSTITUTE),
                (0, START_NS + 4 * second, 0.0, Quality.BAD_DEVICE),
                (0, START_NS + 5 * second, 0.0, Quality.BAD_CONNECTION),
            ]


async def test_writes_take_the_nodes_own_type_and_are_read_back(free_port: Callable[[], int]) -> None:
    async with plant(free_port()) as served, Driver(config(served), POINTS) as driver:
        for point, value in ((0, 12.0), (1, 0.5), (2, 7.0), (3, 1.0)):
            await driver.write(point, value)
            assert (await driver.fetch(point)).value == [value]
        assert await served.nodes["count"].read_value() == 7
        for point, value in ((2, 70_000.0), (3, 0.5)):
            with pytest.raises(Rejected):
                await driver.write(point, value)


async def test_the_servers_refusal_is_named(free_port: Callable[[], int]) -> None:
    async with plant(free_port()) as served:
        await served.nodes["t"].set_writable(False)
        points = [*POINTS, Address(node="zone.gone", namespace=URI), Address(node="x", namespace="urn:nowhere")]
        async with Driver(config(served), points) as driver:
            reasons = []
            for point in (0, 4, 5):
                with pytest.raises(Rejected) as refusal:
                    await driver.write(point, 1.0)
                reasons.append(refusal.value.reason)
            assert reasons == ["BadUserAccessDenied", "BadNodeIdUnknown", "BadNodeIdUnknown"]


async def test_an_unknown_node_costs_one_point(free_port: Callable[[], int]) -> None:
    points = [Address(node="zone.gone", namespace=URI), POINTS[0], Address(node="t", namespace="urn:nowhere")]
    async with plant(free_port()) as served:
        await served.put("t", 1.0, START)
        async with Driver(config(served), points) as driver:
            rows: list[tuple[int, int, float, int]] = []
            await collect(driver, 3, rows)
            assert {(row[0], row[3]) for row in rows} == {(0, 132), (1, 0), (2, 132)}


async def test_a_quiet_server_is_alive_and_a_dead_one_is_not(free_port: Callable[[], int]) -> None:
    port = free_port()
    async with plant(port) as served:
        driver = Driver(config(served), POINTS)
        await driver.__aenter__()
        rows: list[tuple[int, int, float, int]] = []
        await collect(driver, 4, rows)
        assert (await driver.read()).point == [], "an empty answer after a quiet second"
    try:
        started = time.monotonic()
        with pytest.raises(Unavailable):
            while True:
                await driver.read()
        assert time.monotonic() - started < 5
        with pytest.raises(Unavailable):
            await driver.write(0, 1.0)
    finally:
        await driver.__aexit__(None, None, None)
    async with plant(port, before=3) as served:
        await served.put("t", 5.0, START)
        async with Driver(config(served), POINTS[:1]) as again:
            rows = []
            await collect(again, 1, rows)
            assert rows[0][2] == 11.0, "the namespace is found under its new index"


async def test_nobody_there(free_port: Callable[[], int]) -> None:
    with pytest.raises(Unavailable):
        async with Driver(config(Plant(free_port())), POINTS):
            pass


async def test_a_server_that_hangs_is_left_in_time_and_for_the_reason_there_was(free_port: Callable[[], int]) -> None:
    async with plant(free_port()) as served, frozen_on_demand(served, free_port()) as (url, frozen):
        near = Config.model_validate({"url": url, "interval": "20 ms", "timeout": "500 ms"})
        entered = asyncio.Event()

        async def session() -> None:
            async with Driver(near, POINTS) as driver:
                entered.set()
                while True:
                    await driver.read()

        task = asyncio.ensure_future(session())
        await entered.wait()
        frozen.set()
        began = time.monotonic()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert time.monotonic() - began < 2


@asynccontextmanager
async def frozen_on_demand(served: Plant, port: int) -> AsyncIterator[tuple[str, asyncio.Event]]:
    """A way to the server on which nothing moves any more once the event is set."""
    frozen = asyncio.Event()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            if not frozen.is_set():
                writer.write(data)
        writer.close()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", int(served.url.rpartition(":")[2]))
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(carry(reader, back))
            tasks.create_task(carry(there, writer))

    server = await asyncio.start_server(relay, "127.0.0.1", port)
    async with server:
        yield f"opc.tcp://127.0.0.1:{port}", frozen


async def test_cancellation_passes_through_every_call(free_port: Callable[[], int]) -> None:
    calls: list[Callable[[Driver], Awaitable[object]]] = [
        lambda driver: driver.read(),
        lambda driver: driver.fetch(0),
        lambda driver: driver.write(0, 1.0),
    ]
    async with plant(free_port()) as served:
        for call in calls:
            async with Driver(config(served), POINTS, polled=[]) as driver:
                task = asyncio.ensure_future(call(driver))
                await asyncio.sleep(0)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
