"""The embedded broker through the project's own link: MQTT 3.1.1, loopback only."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from simulators import broker
from wire.errors import ConfigError, Unavailable
from wire.runtime.mqtt import MqttConfig, MqttLink


async def test_it_carries_messages_and_keeps_retained_ones(free_port: Callable[[], int]) -> None:
    port = free_port()
    config = MqttConfig(port=port, protocol="3.1.1")
    async with broker.running(port):
        sender, receiver = MqttLink(config, "sender"), MqttLink(config, "receiver")
        heard = receiver.subscribe("plant/+/state", qos=1)
        async with asyncio.TaskGroup() as tasks:
            links = [tasks.create_task(sender.run(), name="sender")]
            await sender.connected()
            await sender.publish("plant/tank/state", b"kept", retain=True, qos=1)
            links.append(tasks.create_task(receiver.run(), name="receiver"))
            await receiver.connected()
            assert (await anext(heard)).payload == b"kept"
            for number in range(200):
                await sender.publish("plant/tank/state", b"%d" % number, qos=1)
            assert [(await anext(heard)).payload for _ in range(200)] == [b"%d" % number for number in range(200)]
            for link in links:
                link.cancel()


async def test_a_taken_port_is_unavailable(free_port: Callable[[], int]) -> None:
    port = free_port()
    async with broker.running(port):
        with pytest.raises(Unavailable, match=str(port)):
            async with broker.running(port):
                pass


async def test_it_never_listens_beyond_loopback() -> None:
    with pytest.raises(ConfigError, match="loopback"):
        broker.configuration(1883, "0.0.0.0")
