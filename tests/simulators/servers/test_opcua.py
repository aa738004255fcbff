"""The OPC UA server through asyncua's own client."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

import pytest
from asyncua import Client, ua

from simulators.faults import Condition
from simulators.servers import opcua
from simulators.servers.base import Sample, Server

STAMP = 1_700_000_000_123_456_000


class Plant(Protocol):
    """Takes writes between 0 and 10."""

    told: list[tuple[str, float]]

    def obey(self, point: str, value: float) -> None: ...


Serving = Callable[[Server], AbstractAsyncContextManager[None]]


def shown(**values: float | None) -> list[Sample]:
    return [Sample(name, STAMP, value) for name, value in values.items()]


NODES: list[dict[str, Any]] = [
    {"point": "h1", "node": "tank.h1", "namespace": "urn:test:tank"},
    {"point": "count", "node": "i=7", "namespace": "urn:test:tank", "type": "int"},
    {"point": "set", "node": "s=tank.set", "namespace": "urn:test:other", "write": {}},
]


def opcua_device(port: int, plant: Plant) -> opcua.Server:
    points = [opcua.Address.model_validate(point) for point in NODES]
    return opcua.Server(opcua.Config(kind="opcua", port=port), points, plant.obey)


async def connected(port: int) -> Client:
    for _ in range(200):
        client = Client(f"opc.tcp://127.0.0.1:{port}", timeout=2)
        try:
            await client.connect()
        except (OSError, TimeoutError, ua.UaError):
            await asyncio.sleep(0.05)
        else:
            return client
    raise AssertionError("the server never answered")


async def test_opcua_shows_values_with_its_own_stamps(
    free_port: Callable[[], int], eventually: Callable[..., Awaitable[None]], serving: Serving, plant: Plant
) -> None:
    port = free_port()
    server = opcua_device(port, plant)
    server.show(shown(h1=12.5))
    async with serving(server):
        client = await connected(port)
        try:
            tank = await client.get_namespace_index("urn:test:tank")
            other = await client.get_namespace_index("urn:test:other")
            level = client.get_node(ua.NodeId(ua.String("tank.h1"), ua.Int16(tank)))
            count = client.get_node(ua.NodeId(ua.Int32(7), ua.Int16(tank)))
            setting = client.get_node(ua.NodeId(ua.String("tank.set"), ua.Int16(other)))
            value = await level.read_data_value()
            assert value.Value is not None
            assert value.Value.Value == 12.5
            assert value.SourceTimestamp is not None
            assert round(value.SourceTimestamp.timestamp() * 1e6) == STAMP // 1000
            assert (await count.read_data_value(raise_on_bad_status=False)).StatusCode.is_bad()
            server.show(shown(h1=None, count=3.0))
            await eventually(lambda: _is_bad(level))
            assert (await count.read_value()) == 3
            server.show(shown(h1=1.0))
            await eventually(lambda: _is_good(level))

            await setting.write_value(3.3)
            assert plant.told == [("set", 3.3)]
            with pytest.raises(ua.UaError) as refusal:
                await setting.write_value(10.1)
            assert "BadOutOfRange" in str(refusal.value) + type(refusal.value).__name__
            assert await setting.read_value() == 3.3
            with pytest.raises(ua.UaError):
                await level.write_value(1.0)
            assert plant.told == [("set", 3.3)]
        finally:
            await client.disconnect()


async def _is_bad(node: Any) -> bool:
    return bool((await node.read_data_value(raise_on_bad_status=False)).StatusCode.is_bad())


async def _is_good(node: Any) -> bool:
    return not await _is_bad(node)


async def test_opcua_dies_and_comes_back(free_port: Callable[[], int], serving: Serving, plant: Plant) -> None:
    port = free_port()
    server = opcua_device(port, plant)
    async with serving(server):
        client = await connected(port)
        await client.disconnect()
        server.impair(Condition(dead=True))
        for _ in range(200):
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                break
            writer.close()
            await asyncio.sleep(0.02)
        else:
            raise AssertionError("a dead device still listens")
        server.show(shown(h1=2.0))
        server.impair(Condition())
        client = await connected(port)
        tank = await client.get_namespace_index("urn:test:tank")
        assert await client.get_node(ua.NodeId(ua.String("tank.h1"), ua.Int16(tank))).read_value() == 2.0
        await client.disconnect()
