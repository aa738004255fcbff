"""Each server through the real client library of its protocol."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from asyncua import Client, ua
from pymodbus.client import AsyncModbusTcpClient
from pymodbus.exceptions import ModbusException, ModbusIOException
from pymodbus.framer import FramerType

from simulators.faults import Condition
from simulators.servers import modbus, mqtt, opcua
from simulators.servers.base import Outgoing, Sample, Server
from simulators.servers.modbus_registers import from_words, to_words
from wire.errors import Rejected

STAMP = 1_700_000_000_123_456_000


class Plant:
    """Takes writes between 0 and 10."""

    def __init__(self) -> None:
        self.told: list[tuple[str, float]] = []

    def obey(self, point: str, value: float) -> None:
        if not 0.0 <= value <= 10.0:
            raise Rejected("range", f"{value}")
        self.told.append((point, value))


@asynccontextmanager
async def serving(server: Server) -> AsyncIterator[None]:
    task = asyncio.create_task(server.serve(), name="serve")
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@asynccontextmanager
async def modbus_client(port: int, framing: str = "tcp") -> AsyncIterator[AsyncModbusTcpClient]:
    framer = FramerType.RTU if framing == "rtu" else FramerType.SOCKET
    client = AsyncModbusTcpClient("127.0.0.1", port=port, framer=framer, timeout=0.5, retries=0, reconnect_delay=0)
    for _ in range(100):
        if await client.connect():
            break
        await asyncio.sleep(0.02)
    try:
        yield client
    finally:
        client.close()
        await asyncio.sleep(0)


MAP: list[dict[str, Any]] = [
    {"point": "h1", "table": "input", "address": 0, "scale": 0.01},
    {"point": "big", "table": "input", "address": 2, "type": "float32", "order": "cdab"},
    {"point": "set", "table": "holding", "address": 8, "scale": 0.001, "write": {}},
    {"point": "wide-set", "table": "holding", "address": 10, "type": "int32", "order": "dcba", "write": {}},
    {"point": "valve", "table": "coil", "address": 17, "write": {}},
    {"point": "alarm", "table": "discrete", "address": 3},
]


def device(port: int, plant: Plant, framing: str = "tcp") -> modbus.Server:
    config = modbus.Config(kind="modbus", port=port, framing=framing)  # type: ignore[arg-type]
    return modbus.Server(config, [modbus.Address.model_validate(point) for point in MAP], plant.obey)


def shown(**values: float | None) -> list[Sample]:
    return [Sample(name, STAMP, value) for name, value in values.items()]


@pytest.mark.parametrize("framing", ["tcp", "rtu"])
async def test_modbus_shows_its_register_map(free_port: Callable[[], int], framing: str) -> None:
    port = free_port()
    server = device(port, Plant(), framing)
    server.show(shown(h1=12.34, big=-1.5, valve=1.0, alarm=1.0))
    async with serving(server), modbus_client(port, framing) as client:
        inputs = (await client.read_input_registers(0, count=1)).registers
        assert inputs == [1234]
        words = (await client.read_input_registers(2, count=2)).registers
        assert client.convert_from_registers(words, client.DATATYPE.FLOAT32, word_order="little") == -1.5
        assert (await client.read_coils(17, count=1)).bits[0] is True
        assert (await client.read_discrete_inputs(3, count=1)).bits[0] is True
        server.show(shown(h1=1.0, valve=0.0))
        assert (await client.read_input_registers(0, count=1)).registers == [100]
        assert (await client.read_coils(17, count=1)).bits[0] is False


async def test_modbus_refuses_by_exception(free_port: Callable[[], int]) -> None:
    port, plant = free_port(), Plant()
    server = device(port, plant)
    server.show(shown(h1=None, big=1.0))
    async with serving(server), modbus_client(port) as client:
        assert (await client.read_input_registers(1, count=1)).exception_code == 2  # a hole in the map
        assert (await client.read_input_registers(500, count=1)).exception_code == 2
        assert (await client.read_input_registers(0, count=1)).exception_code == 4  # no value
        assert not (await client.read_input_registers(2, count=2)).isError()
        assert (await client.write_register(8, 10_001)).exception_code == 3  # 10.001 of 10
        assert (await client.write_register(9, 1)).exception_code == 2
        assert plant.told == []


async def test_modbus_takes_writes(free_port: Callable[[], int]) -> None:
    port, plant = free_port(), Plant()
    async with serving(device(port, plant)), modbus_client(port) as client:
        assert not (await client.write_register(8, 3_300)).isError()
        assert (await client.read_holding_registers(8, count=1)).registers == [3_300]
        assert not (await client.write_registers(10, [0x0700, 0])).isError()  # dcba: 7
        assert not (await client.write_coil(17, True)).isError()
        assert plant.told == [("set", pytest.approx(3.3)), ("wide-set", 7.0), ("valve", 1.0)]


async def test_modbus_is_slow_then_dead_then_well(free_port: Callable[[], int]) -> None:
    port = free_port()
    server = device(port, Plant())
    server.show(shown(h1=1.0))
    async with serving(server), modbus_client(port) as client:
        server.impair(Condition(delay_s=0.2))
        begun = time.monotonic()
        assert not (await client.read_input_registers(0, count=1)).isError()
        assert 0.2 <= time.monotonic() - begun < 0.45
        server.impair(Condition(dead=True))
        with pytest.raises((ModbusIOException, ModbusException)):
            await client.read_input_registers(0, count=1)
        server.impair(Condition())
    async with serving(device(port, Plant())), modbus_client(port) as client:
        assert (await client.read_input_registers(0, count=1)).registers == [0]


@pytest.mark.parametrize("order", ["abcd", "badc", "cdab", "dcba"])
@pytest.mark.parametrize("kind", ["int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64"])
def test_words_survive_the_round_trip(kind: Any, order: Any) -> None:
    for number in (0.0, 1.0, 77.0, 12_345.0):
        assert from_words(to_words(number, kind, order), kind, order) == number


def test_words_as_manuals_print_them() -> None:
    assert to_words(0x0A0B0C0D, "uint32", "abcd") == [0x0A0B, 0x0C0D]
    assert to_words(0x0A0B0C0D, "uint32", "badc") == [0x0B0A, 0x0D0C]
    assert to_words(0x0A0B0C0D, "uint32", "cdab") == [0x0C0D, 0x0A0B]
    assert to_words(0x0A0B0C0D, "uint32", "dcba") == [0x0D0C, 0x0B0A]
    assert to_words(-2.0, "int16", "abcd") == [0xFFFE]
    assert to_words(99_999.0, "uint16", "abcd") == [0xFFFF]  # a converter saturates
    assert to_words(-1.0, "uint16", "abcd") == [0]


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
    free_port: Callable[[], int], eventually: Callable[..., Awaitable[None]]
) -> None:
    port, plant = free_port(), Plant()
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


async def test_opcua_dies_and_comes_back(free_port: Callable[[], int]) -> None:
    port = free_port()
    server = opcua_device(port, Plant())
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


TOPICS = {
    name: mqtt.Address.model_validate(fields)
    for name, fields in {
        "x": {"point": "x", "topic": "car/pos", "path": "gnss.x", "time": "t", "time_unit": "us"},
        "y": {"point": "y", "topic": "car/pos", "path": "gnss.y", "time": "t", "time_unit": "us"},
        "n": {"point": "n", "topic": "car/n", "type": "int", "scale": 0.5},
        "set": {"point": "set", "write_topic": "car/set"},
    }.items()
}


def test_mqtt_groups_points_of_one_topic_and_stamp() -> None:
    samples = [*shown(x=1.0, y=2.0, n=4.0, set=1.0), Sample("x", STAMP + 1_000, 3.0), Sample("y", STAMP, None)]
    bodies = [(message.topic, json.loads(message.payload)) for message in mqtt.messages(samples, TOPICS)]
    assert bodies == [
        ("car/n", 8),
        ("car/pos", {"gnss": {"x": 1.0, "y": 2.0}, "t": STAMP // 1000}),
        ("car/pos", {"gnss": {"x": 3.0}, "t": STAMP // 1000 + 1}),
    ]


@pytest.mark.parametrize(
    ("payload", "path", "value"),
    [
        (b'{"value": 3.5}', "value", 3.5),
        (b'{"a": {"b": 2}}', "a.b", 2.0),
        (b"7", None, 7.0),
        (b'{"value": true}', "value", None),
        (b'{"value": "3"}', "value", None),
        (b"[1]", "value", None),
        (b"{", "value", None),
        (b"\xff", "value", None),
    ],
)
def test_mqtt_commands_are_numbers_or_nothing(payload: bytes, path: str | None, value: float | None) -> None:
    assert mqtt.command(payload, path) == value


async def test_outgoing_keeps_its_times_and_its_bound() -> None:
    outgoing: Outgoing[str] = Outgoing(capacity=3)
    outgoing.put("late", 0.05)
    outgoing.put("now")
    assert await outgoing.get() == "now"
    begun = time.monotonic()
    assert await outgoing.get() == "late"
    assert time.monotonic() - begun >= 0.03
    for item in "abcd":
        outgoing.put(item)
    assert outgoing.dropped == 1
    assert [await outgoing.get() for _ in range(3)] == ["b", "c", "d"]
