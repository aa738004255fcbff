"""What every link must do: the same tests for the broker in memory and a real one, in both protocol versions."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from wire.errors import Unavailable
from wire.runtime.link import Delivery, Link, Subscription
from wire.runtime.memory import MemoryBroker, MemoryLink
from wire.runtime.mqtt import MqttConfig, MqttLink

Will = tuple[str, bytes]


@dataclass
class Bench:
    """A broker, and links to it."""

    new_link: Callable[[str, Will | None], Link]
    stop: Callable[[], None]
    start: Callable[[], None]


@pytest.fixture(params=["memory", "mqtt-5", "mqtt-3.1.1"])
def bench(request: pytest.FixtureRequest) -> Callable[[], Bench]:
    if request.param == "memory":

        def in_memory() -> Bench:
            broker = MemoryBroker()
            return Bench(lambda name, will: MemoryLink(broker, name, will), broker.stop, broker.start)

        return in_memory
    server = request.getfixturevalue("mosquitto")
    config = MqttConfig(port=server.port, protocol=request.param.removeprefix("mqtt-"))
    return lambda: Bench(lambda name, will: MqttLink(config, name, will), server.kill, server.start)


@contextlib.asynccontextmanager
async def running(*links: Link) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(link.run(), name="link") for link in links]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def receive(inbox: Subscription, seconds: float = 5.0) -> Delivery:
    async with asyncio.timeout(seconds):
        return await anext(inbox)


async def test_carries_messages_between_two_links(bench: Callable[[], Bench]) -> None:
    table = bench()
    sender, receiver = table.new_link("sender", None), table.new_link("receiver", None)
    inbox = receiver.subscribe("plant/+/level")
    others = receiver.subscribe("heat/#")
    async with running(sender, receiver):
        await asyncio.gather(sender.connected(), receiver.connected())
        for number in range(5):
            await sender.publish("plant/a/level", b"%d" % number)
        await sender.publish("heat", b"x", qos=1)
        got = [await receive(inbox) for _ in range(5)]
        assert [each.payload for each in got] == [b"0", b"1", b"2", b"3", b"4"]
        assert got[0].topic == "plant/a/level"
        assert not got[0].retain
        assert (await receive(others)).payload == b"x"


async def test_every_matching_filter_gets_a_message_at_least_once(bench: Callable[[], Bench]) -> None:
    link = bench().new_link("both", None)
    exact, wide = link.subscribe("plant/level"), link.subscribe("plant/#")
    async with running(link):
        await link.connected()
        await link.publish("plant/level", b"7")
        assert (await receive(exact)).payload == (await receive(wide)).payload == b"7"


async def test_refuses_at_once_without_a_connection(bench: Callable[[], Bench]) -> None:
    link = bench().new_link("alone", None)
    with pytest.raises(Unavailable):
        await link.publish("a", b"b")


async def test_subscribes_while_running(bench: Callable[[], Bench]) -> None:
    link = bench().new_link("late", None)
    async with running(link):
        await link.connected()
        inbox = link.subscribe("late/topic")
        delivery = None
        while delivery is None:
            await link.publish("late/topic", b"now")
            with contextlib.suppress(TimeoutError):
                delivery = await receive(inbox, 0.2)
        assert delivery.payload == b"now"


async def test_keeps_retained_messages_for_latecomers(bench: Callable[[], Bench]) -> None:
    table = bench()
    first, second = table.new_link("first", None), table.new_link("second", None)
    async with running(first):
        await first.connected()
        await first.publish("state/a", b"on", qos=1, retain=True)
        inbox = second.subscribe("state/+")
        async with running(second):
            delivery = await receive(inbox)
            assert (delivery.payload, delivery.retain) == (b"on", True)


async def test_comes_back_with_its_subscriptions_after_the_broker_died(
    bench: Callable[[], Bench], eventually: Callable[..., Awaitable[None]]
) -> None:
    table = bench()
    link = table.new_link("phoenix", None)
    inbox = link.subscribe("t")
    async with running(link):
        session = await link.connected()
        table.stop()

        async def refused() -> bool:
            try:
                await link.publish("t", b"lost")
            except Unavailable:
                return True
            return False

        await eventually(refused)
        table.start()
        loop = asyncio.get_running_loop()
        began = loop.time()
        assert await link.connected(session) == session + 1
        assert loop.time() - began < 0.5
        await link.publish("t", b"again")
        delivery = await receive(inbox)
        while delivery.payload == b"lost":
            delivery = await receive(inbox)
        assert delivery.payload == b"again"


async def test_a_full_inbox_drops_the_oldest_and_counts(
    bench: Callable[[], Bench], eventually: Callable[..., Awaitable[None]]
) -> None:
    link = bench().new_link("full", None)
    inbox: Any = link.subscribe("n", capacity=3)
    async with running(link):
        await link.connected()
        for number in range(10):
            await link.publish("n", b"%d" % number)
        await eventually(lambda: inbox.dropped == 7)
        assert [(await receive(inbox)).payload for _ in range(3)] == [b"7", b"8", b"9"]


async def test_a_waiting_reader_and_a_running_link_can_be_cancelled(bench: Callable[[], Bench]) -> None:
    table = bench()
    link = table.new_link("stop", None)
    inbox = link.subscribe("nothing")
    async with running(link):
        await link.connected()
        with pytest.raises(TimeoutError):
            await receive(inbox, 0.05)
    with pytest.raises(Unavailable):
        await link.publish("a", b"b")


@pytest.mark.parametrize("delay", [0.0, 0.001, 0.01, 0.03])
async def test_can_be_cancelled_while_connecting(bench: Callable[[], Bench], delay: float) -> None:
    link = bench().new_link("hasty", None)
    async with running(link):
        await asyncio.sleep(delay)
