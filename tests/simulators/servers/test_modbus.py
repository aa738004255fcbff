"""The Modbus server through pymodbus's own client."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol

import pytest
from pymodbus.client import AsyncModbusTcpClient
from pymodbus.exceptions import ModbusException, ModbusIOException
from pymodbus.framer import FramerType

from simulators.faults import Condition
from simulators.servers import modbus
from simulators.servers.base import Sample, Server
from simulators.servers.modbus_registers import from_words, to_words

STAMP = 1_700_000_000_123_456_000


class Plant(Protocol):
    """Takes writes between 0 and 10."""

    told: list[tuple[str, float]]

    def obey(self, point: str, value: float) -> None: ...


Serving = Callable[[Server], AbstractAsyncContextManager[None]]


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
async def test_modbus_shows_its_register_map(
    free_port: Callable[[], int], framing: str, serving: Serving, plant: Plant
) -> None:
    port = free_port()
    server = device(port, plant, framing)
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


async def test_modbus_refuses_by_exception(free_port: Callable[[], int], serving: Serving, plant: Plant) -> None:
    port = free_port()
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


async def test_modbus_takes_writes(free_port: Callable[[], int], serving: Serving, plant: Plant) -> None:
    port = free_port()
    async with serving(device(port, plant)), modbus_client(port) as client:
        assert not (await client.write_register(8, 3_300)).isError()
        assert (await client.read_holding_registers(8, count=1)).registers == [3_300]
        assert not (await client.write_registers(10, [0x0700, 0])).isError()  # dcba: 7
        assert not (await client.write_coil(17, True)).isError()
        assert plant.told == [("set", pytest.approx(3.3)), ("wide-set", 7.0), ("valve", 1.0)]


async def test_modbus_is_slow_then_dead_then_well(free_port: Callable[[], int], serving: Serving, plant: Plant) -> None:
    port = free_port()
    server = device(port, plant)
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
        async with modbus_client(port) as again:
            assert (await again.read_input_registers(0, count=1)).registers == [100]


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
