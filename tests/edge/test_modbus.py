"""The Modbus driver against an honest server, and against a device that lies in every way we could think of."""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import Callable
from typing import Any

import pytest
from pymodbus.client import AsyncModbusTcpClient

from edge.drivers.modbus import Address, Config, Driver
from tests.edge.modbus_stub import Stub, serving
from wire.errors import Rejected, Unavailable
from wire.quality import Quality

FIVE = [Address(table="holding", address=at) for at in range(5)]


def config(stub: Stub, **more: Any) -> Config:
    settings = {"host": "127.0.0.1", "port": stub.port, "timeout": "200 ms", "framing": "rtu" if stub.rtu else "tcp"}
    return Config.model_validate(settings | more)


@pytest.mark.parametrize("rtu", [False, True])
async def test_every_kind_of_point_is_read_and_written(rtu: bool) -> None:
    points = [
        Address(table="holding", address=0, type="int16", scale=0.5, offset=10.0),
        Address(table="holding", address=1, type="float32", order="cdab"),
        Address(table="holding", address=3, type="uint64", order="dcba"),
        Address(table="holding", address=7, type="bool", bit=9),
        Address(table="holding", address=8, type="string", length=2),
        Address(table="coil", address=3),
        Address(table="discrete", address=4),
        Address(table="input", address=0, type="int16"),
    ]
    async with serving(Stub(rtu=rtu)) as stub:
        stub.words.update({8: 0x4F4B, 9: 0, 7: 1})
        stub.bits[4] = True
        async with Driver(config(stub), points) as driver:
            for point, value in ((0, -3.5), (1, 0.15625), (2, 12345.0), (3, 1.0), (5, 1.0)):
                await driver.write(point, value)
            samples = await driver.read()
            values = dict(zip(samples.point, samples.value, strict=True))
            assert {point: values[point] for point in (0, 1, 2, 3, 5, 6)} == {
                0: -3.5, 1: 0.15625, 2: 12345.0, 3: 1.0, 5: 1.0, 6: 1.0,
            }  # fmt: skip
            assert [samples.side[row] for row, point in enumerate(samples.point) if point == 4] == ["OK"]
            assert samples.quality == [Quality.GOOD] * 8
            assert stub.words[7] == 0x0201, "only bit 9 changed"
            assert (await driver.fetch(1)).value == [0.15625]


async def test_integers_beyond_a_float_keep_every_digit() -> None:
    async with serving(Stub()) as stub:
        stub.words.update({0: 0x7FFF, 1: 0xFFFF, 2: 0xFFFF, 3: 0xFFFF})
        async with Driver(config(stub), [Address(table="input", address=0, type="int64")]) as driver:
            assert (await driver.read()).side == {0: 2**63 - 1}


async def test_one_illegal_register_costs_one_point() -> None:
    points = [Address(table="input", address=at) for at in range(100)]
    async with serving(Stub(illegal={57})) as stub, Driver(config(stub), points) as driver:
        for _ in range(2):
            samples = await driver.read()
            quality = dict(zip(samples.point, samples.quality, strict=True))
            assert [point for point, code in quality.items() if code] == [57]
            assert quality[57] == Quality.BAD_ADDRESS
        before = stub.requests
        assert len((await driver.read()).point) == 100
        assert stub.requests - before <= 8, "the refused register is not asked again in every cycle"
        stub.illegal.clear()
        for _ in range(64):
            samples = await driver.read()
        assert samples.quality == [Quality.GOOD] * 100


def wrong_function(reply: bytes) -> bytes:
    return bytes([reply[0] ^ 7]) + reply[1:]


def short(reply: bytes) -> bytes:
    return bytes([reply[0], 2]) + reply[2:4]


def long(reply: bytes) -> bytes:
    return bytes([reply[0], reply[1] + 2]) + reply[2:] + b"\1\2"


def refused(code: int) -> Callable[[bytes], bytes]:
    return lambda reply: bytes([reply[0] | 0x80, code])


@pytest.mark.parametrize("rtu", [False, True])
@pytest.mark.parametrize(
    ("lie", "quality"),
    [
        (short, Quality.BAD_REPLY),
        (long, Quality.BAD_REPLY),
        (refused(1), Quality.BAD_DEVICE),
        (refused(2), Quality.BAD_ADDRESS),
        (refused(3), Quality.BAD_DEVICE),
        (refused(4), Quality.BAD_DEVICE),
    ],
)
async def test_a_lie_becomes_quality_never_a_value(lie: Any, quality: Quality, rtu: bool) -> None:
    async with serving(Stub(rtu=rtu, lie=lie)) as stub, Driver(config(stub), FIVE) as driver:
        samples = await driver.read()
        assert sorted(samples.point) == list(range(5))
        assert samples.quality == [quality] * 5
        assert samples.value == [0.0] * 5


async def test_an_answer_to_another_question_is_no_answer() -> None:
    async with serving(Stub(lie=wrong_function)) as stub, Driver(config(stub), FIVE) as driver:
        assert (await driver.read()).quality == [Quality.BAD_REPLY] * 5


@pytest.mark.parametrize(
    "wrap",
    [
        lambda frame: b"\0\0" + frame[2:],
        lambda frame: bytes([frame[0] ^ 1]) + frame[1:],
        lambda frame: frame[:6] + b"\7" + frame[7:],
        lambda frame: b"\xff" * 40,
        lambda frame: frame[:-1],
        lambda frame: struct.pack(">HHHB", 1, 0, 2, 1) + b"\3",
    ],
    ids=["transaction-zero", "other-transaction", "other-unit", "garbage", "truncated", "empty"],
)
async def test_frames_that_belong_to_nobody_never_become_values(wrap: Any) -> None:
    async with serving(Stub(wrap=wrap)) as stub, Driver(config(stub), FIVE) as driver:
        try:
            samples = await driver.read()
        except Unavailable:
            return
        assert all(code == Quality.BAD_REPLY for code in samples.quality)


async def test_a_late_answer_is_not_taken_for_the_next() -> None:
    """RTU frames carry no transaction number: after a timeout only a new stream is safe."""
    held: list[bytes] = []

    def late(frame: bytes) -> bytes:
        held.append(frame)
        return b"" if len(held) == 1 else held[-2]

    points = [Address(table="holding", address=0), Address(table="holding", address=100)]
    stub = Stub(rtu=True, wrap=late, words={0: 11, 100: 22})
    async with serving(stub), Driver(config(stub), points) as driver:
        samples = await driver.read()
        assert stub.sessions == 2
        assert dict(zip(samples.point, samples.quality, strict=True))[0] == Quality.BAD_TIMEOUT


async def test_a_silent_device_is_unavailable_within_its_deadline() -> None:
    async with serving(Stub(lie=lambda reply: None)) as stub, Driver(config(stub), FIVE) as driver:
        started = time.monotonic()
        with pytest.raises(Unavailable):
            await driver.read()
        assert time.monotonic() - started < 0.5


async def test_one_silent_block_does_not_silence_the_others() -> None:
    points = [Address(table="holding", address=0), Address(table="input", address=0), Address(table="coil", address=0)]
    stub = Stub(lie=lambda reply: None if reply[0] == 3 else reply)
    async with serving(stub), Driver(config(stub), points) as driver:
        for _ in range(3):
            samples = await driver.read()
            assert dict(zip(samples.point, samples.quality, strict=True)) == {0: Quality.BAD_TIMEOUT, 1: 0, 2: 0}


async def test_nobody_there(free_port: Callable[[], int]) -> None:
    with pytest.raises(Unavailable, match="no connection"):
        async with Driver(config(Stub(port=free_port())), FIVE):
            pass


@pytest.mark.parametrize(
    ("lie", "reason"),
    [(refused(2), "device/2"), (refused(4), "device/4"), (lambda reply: reply[:-1] + b"\x7f", "device/reply")],
)
async def test_a_write_that_was_not_confirmed_is_refused(lie: Any, reason: str) -> None:
    async with serving(Stub(lie=lie)) as stub, Driver(config(stub), FIVE) as driver:
        with pytest.raises(Rejected) as refusal:
            await driver.write(1, 7.0)
        assert refusal.value.reason == reason


async def test_what_cannot_be_written_does_not_reach_the_device() -> None:
    points = [
        Address(table="holding", address=0),
        Address(table="input", address=0),
        Address(table="coil", address=0),
        Address(table="holding", address=1, type="string"),
    ]
    async with serving(Stub()) as stub, Driver(config(stub), points) as driver:
        for point, value in ((0, 70_000.0), (0, -1.0), (0, float("nan")), (1, 1.0), (2, 0.5), (3, 1.0)):
            with pytest.raises(Rejected):
                await driver.write(point, value)
        assert stub.requests == 0


async def test_cancellation_passes_through_every_call() -> None:
    async with serving(Stub(lie=lambda reply: None)) as stub:
        for call in (lambda d: d.read(), lambda d: d.fetch(0), lambda d: d.write(0, 1.0)):
            async with Driver(config(stub, timeout="30 s"), FIVE) as driver:
                task = asyncio.create_task(call(driver))
                await asyncio.sleep(0.05)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task


async def test_pymodbus_alone_would_believe_a_short_answer() -> None:
    """Why every reply is judged here: if this fails, the library has learned to do it."""
    async with serving(Stub(lie=short)) as stub:
        client = AsyncModbusTcpClient("127.0.0.1", port=stub.port, reconnect_delay=0, retries=0, timeout=1)
        await client.connect()
        try:
            assert not (await client.read_holding_registers(0, count=5)).isError()
        finally:
            client.close()


async def test_a_cancellation_that_comes_together_with_the_answer_is_not_lost() -> None:
    async with serving(Stub()) as stub, Driver(config(stub), FIVE) as driver:
        for delay in range(60):

            async def poll() -> None:
                while True:
                    await driver.read()

            task = asyncio.create_task(poll())
            for _ in range(delay):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task], timeout=0.5)
            assert task.cancelled(), f"still polling after {delay} turns of the loop"
            await driver.__aexit__()
            await driver.__aenter__()
