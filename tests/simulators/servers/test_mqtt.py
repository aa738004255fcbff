"""The MQTT device through a real broker."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from itertools import pairwise
from typing import Protocol

import pytest

from simulators.faults import Condition
from simulators.servers import mqtt
from simulators.servers.base import Sample, Server
from wire.runtime.link import Delivery
from wire.runtime.mqtt import MqttConfig, MqttLink

STAMP = 1_700_000_000_123_456_000


class Plant(Protocol):
    """Takes writes between 0 and 10."""

    told: list[tuple[str, float]]

    def obey(self, point: str, value: float) -> None: ...


Serving = Callable[[Server], AbstractAsyncContextManager[None]]


def shown(**values: float | None) -> list[Sample]:
    return [Sample(name, STAMP, value) for name, value in values.items()]


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


class Broker(Protocol):
    port: int


@asynccontextmanager
async def listening(port: int, topic: str) -> AsyncIterator[AsyncIterator[Delivery]]:
    link = MqttLink(MqttConfig(port=port), "listener")
    heard = link.subscribe(topic, capacity=10_000)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(link.run(), name="link")
        await link.connected()
        yield heard
        running.cancel()


async def test_mqtt_holds_some_messages_back(mosquitto: Broker, serving: Serving, plant: Plant) -> None:
    broker = MqttConfig(port=mosquitto.port)
    late = mqtt.Late.model_validate({"share": 0.3, "by": "200 ms"})
    server = mqtt.Server(mqtt.Config(kind="mqtt", client="car", broker=broker, late=late), [TOPICS["x"]], plant.obey)
    async with listening(mosquitto.port, "car/pos") as heard, serving(server):
        while True:  # the device has no memory: what it says before it is connected is gone
            server.show([Sample("x", STAMP, 0.0)])
            with suppress(TimeoutError):
                async with asyncio.timeout(0.2):
                    await anext(heard)
                    break
        await asyncio.sleep(0.4)
        for number in range(1, 101):
            server.show([Sample("x", STAMP + number * 1000, float(number))])
            await asyncio.sleep(0.002)
        arrived: list[tuple[float, int]] = []
        while len(arrived) < 100:
            body = json.loads((await anext(heard)).payload)
            if body["gnss"]["x"]:
                arrived.append((body["gnss"]["x"], body["t"] - STAMP // 1000))
        assert sorted(arrived) == [(float(number), number) for number in range(1, 101)]
        late_ones = sum(after < before for before, after in pairwise(arrived))
        assert late_ones >= 10


async def test_mqtt_obeys_commands_unless_dead(
    mosquitto: Broker, eventually: Callable[..., Awaitable[None]], serving: Serving, plant: Plant
) -> None:
    broker = MqttConfig(port=mosquitto.port)
    server = mqtt.Server(mqtt.Config(kind="mqtt", client="car", broker=broker), list(TOPICS.values()), plant.obey)
    link = MqttLink(broker, "commander")
    async with serving(server), asyncio.TaskGroup() as tasks:
        running = tasks.create_task(link.run(), name="link")
        await link.connected()

        async def told(payload: bytes) -> bool:
            await link.publish("car/set", payload, qos=1)
            await asyncio.sleep(0.05)
            return bool(plant.told)

        await eventually(lambda: told(b'{"value": 3.5}'))
        plant.told.clear()
        for nonsense in (b'{"value": 99}', b"{", b'{"value": true}'):
            await told(nonsense)
        server.impair(Condition(dead=True))
        await told(b'{"value": 4.0}')
        assert plant.told == []
        running.cancel()
