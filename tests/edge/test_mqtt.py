"""MQTT devices: the JSON mapping, and the driver against a real broker."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from edge.drivers import mqtt_json
from edge.drivers.base import Samples
from edge.drivers.mqtt import Address, Config, Driver
from wire.errors import BadData, Rejected, Unavailable
from wire.quality import Quality
from wire.runtime.link import Subscription
from wire.runtime.mqtt import MqttConfig, MqttLink

POINTS = [
    Address(topic="car/{id}/imu", path="gyro.z", time="t"),
    Address(topic="car/{id}/imu", path="axes[1]", time="t", scale=0.5),
    Address(topic="car/{id}/name", type="text"),
    Address(topic="car/{id}/light", type="bool", write_topic="car/{id}/light/set"),
    Address(write_topic="car/{id}/speed/set", write_path="cmd.speed", scale=0.1),
]


def test_paths() -> None:
    content = {"a": {"b": [10, {"c": 3}]}}
    assert mqtt_json.pick(content, "a.b[1].c") == 3
    assert mqtt_json.pick(content, None) is content
    for path in ("a.x", "a.b[2]", "a[0]", "a.b.c", "a.b[1].c.d"):
        assert mqtt_json.pick(content, path) is mqtt_json.MISSING


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        (1767323045678901234, "ns", 1767323045678901234),
        (1767323045678, "ms", 1767323045678000000),
        (1767323045.5, "s", 1767323045500000000),
        ("2026-01-02T03:04:05.678901+00:00", "iso", 1767323045678901000),
        ("2026-01-02T04:04:05.678901+01:00", "iso", 1767323045678901000),
        ("yesterday", "iso", 0),
        (True, "s", 0),
        ("12", "s", 0),
        (-1, "s", 0),
        (float("nan"), "s", 0),
        (1 << 62, "s", 0),
        (None, "ns", 0),
    ],
)
def test_stamps(value: object, unit: mqtt_json.TimeUnit, expected: int) -> None:
    assert mqtt_json.stamp(value, unit) == expected


@given(st.floats(allow_nan=False, allow_infinity=False), st.sampled_from([None, "v", "a.b"]))
def test_what_is_composed_can_be_picked(value: float, path: str | None) -> None:
    assert mqtt_json.pick(mqtt_json.parse(mqtt_json.compose(value, "float", path)), path) == value


@pytest.mark.parametrize("payload", [b"", b"{", b"\xff", b"[" * 100_000, b" " * (1 << 17)])
def test_what_is_no_json_is_bad_data(payload: bytes) -> None:
    with pytest.raises(BadData):
        mqtt_json.parse(payload)


@pytest.mark.parametrize("fields", [{}, {"topic": "a/+/b"}, {"topic": "a", "path": "a..b"}, {"topic": "a", "scale": 0}])
def test_an_address_must_be_reachable(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Address.model_validate(fields)


@asynccontextmanager
async def device(port: int) -> AsyncIterator[MqttLink]:
    link = MqttLink(MqttConfig(port=port), "device")
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(link.run())
        await link.connected()
        yield link
        task.cancel()


def config(port: int) -> Config:
    return Config.model_validate({"broker": {"port": port}, "id": "7", "timeout": "1 s"})


async def gather(driver: Driver, count: int) -> list[tuple[int, int, float, int]]:
    rows: list[tuple[int, int, float, int]] = []
    async with asyncio.timeout(5):
        while len(rows) < count:
            samples: Samples = await driver.read()
            rows += zip(samples.point, samples.time, samples.value, samples.quality, strict=True)
    return rows


async def test_each_message_keeps_its_own_time(mosquitto: Any) -> None:
    async with device(mosquitto.port) as car, Driver(config(mosquitto.port), POINTS, "car") as driver:
        for time, gyro in ((2000, 0.2), (1000, 0.1)):
            await car.publish("car/7/imu", json.dumps({"t": time, "gyro": {"z": gyro}, "axes": [0, 8]}).encode())
        assert await gather(driver, 4) == [(0, 2000, 0.2, 0), (1, 2000, 4.0, 0), (0, 1000, 0.1, 0), (1, 1000, 4.0, 0)]


@pytest.mark.parametrize(
    ("payload", "rows"),
    [
        (b'{"t": 5, "gyro": {"z": true}}', [(0, 5, 0.0, Quality.BAD_TYPE)]),
        (b'{"t": 5, "gyro": {"z": "1"}}', [(0, 5, 0.0, Quality.BAD_TYPE)]),
        (b'{"t": 5, "gyro": {"z": null}}', [(0, 5, 0.0, Quality.BAD_TYPE)]),
        (b'{"gyro": {"z": 1.5}}', [(0, 0, 1.5, Quality.UNCERTAIN_CLOCK)]),
        (b'{"t": 5}', [(0, 0, 0.0, Quality.BAD_REPLY), (1, 0, 0.0, Quality.BAD_REPLY)]),
        (b"{", [(0, 0, 0.0, Quality.BAD_REPLY), (1, 0, 0.0, Quality.BAD_REPLY)]),
    ],
)
async def test_what_a_device_says_wrong_becomes_quality(mosquitto: Any, payload: bytes, rows: list[Any]) -> None:
    async with device(mosquitto.port) as car, Driver(config(mosquitto.port), POINTS, "car") as driver:
        await car.publish("car/7/imu", payload)
        assert await gather(driver, len(rows)) == rows


async def test_a_retained_value_without_a_stamp_is_not_fresh(mosquitto: Any) -> None:
    async with device(mosquitto.port) as car:
        await car.publish("car/7/light", b"true", qos=1, retain=True)
        async with Driver(config(mosquitto.port), POINTS, "car") as driver:
            assert await gather(driver, 1) == [(3, 0, 1.0, Quality.UNCERTAIN_CLOCK)]


async def test_text_and_bool_stay_what_they_are(mosquitto: Any) -> None:
    async with device(mosquitto.port) as car, Driver(config(mosquitto.port), POINTS, "car") as driver:
        await car.publish("car/7/name", b'"blue"')
        async with asyncio.timeout(5):
            assert (await driver.read()).side == {0: "blue"}
        await car.publish("car/7/light", b"true")
        assert await gather(driver, 1) == [(3, 0, 1.0, 0)]


async def test_a_write_is_published_and_read_back_from_what_comes_after(mosquitto: Any) -> None:
    async with device(mosquitto.port) as car, Driver(config(mosquitto.port), POINTS, "car") as driver:
        heard: Subscription = car.subscribe("car/7/+/set")
        await asyncio.sleep(0.1)
        await car.publish("car/7/light", b"false")
        await gather(driver, 1)
        await driver.write(4, 2.5)
        assert json.loads((await heard.__anext__()).payload) == {"cmd": {"speed": 25.0}}
        await driver.write(3, 1.0)
        assert json.loads((await heard.__anext__()).payload) == {"value": True}
        with pytest.raises(Unavailable):
            await driver.fetch(3)
        await car.publish("car/7/light", b"true")
        assert (await driver.fetch(3)).value == [1.0]
        for point, value in ((0, 1.0), (3, 0.5)):
            with pytest.raises(Rejected):
                await driver.write(point, value)


async def test_it_goes_on_after_the_broker_was_away(mosquitto: Any) -> None:
    async with Driver(config(mosquitto.port), POINTS, "car") as driver:
        mosquitto.kill()
        await asyncio.sleep(0.1)
        with pytest.raises(Unavailable):
            await driver.write(3, 1.0)
        mosquitto.start()
        async with device(mosquitto.port) as car:
            rows: list[Any] = []
            async with asyncio.timeout(5):
                while not rows:
                    await car.publish("car/7/light", b"true")
                    try:
                        async with asyncio.timeout(0.1):
                            rows += (await driver.read()).value
                    except TimeoutError:
                        continue


async def test_nobody_there(free_port: Callable[[], int]) -> None:
    with pytest.raises(Unavailable, match="no connection"):
        async with Driver(config(free_port()), POINTS):
            pass


async def test_cancellation_passes_through_every_call(mosquitto: Any) -> None:
    calls: list[Callable[[Driver], Awaitable[object]]] = [lambda driver: driver.read(), lambda driver: driver.fetch(0)]
    for call in calls:
        async with Driver(config(mosquitto.port), POINTS, "car") as driver:
            task = asyncio.ensure_future(call(driver))
            await asyncio.sleep(0.02)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
