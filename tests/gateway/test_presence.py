"""Edges are announced to the cloud with their own stamp; a forgetful broker is told again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from gateway.presence import Presence
from wire.codec import decode, encode
from wire.messages import Alive
from wire.runtime.memory import MemoryBroker, MemoryLink
from wire.topics import EdgeRoute, GatewayRoute

ROUTE = GatewayRoute("demo", "gw-1")
EDGE = EdgeRoute("demo", "gw-1", "edge-tank")


def alive(name: str, role: str = "edge", at: int = 5) -> Alive:
    return Alive.model_validate({"site": "demo", "name": name, "role": role, "online": True, "at": at, "nonce": "n"})


async def test_presence_goes_up_retained_and_again_after_the_broker_forgot(
    eventually: Callable[..., Awaitable[None]],
) -> None:
    above, below = MemoryBroker(), MemoryBroker()
    north, south, edge = MemoryLink(above), MemoryLink(below), MemoryLink(below)
    refused: list[str] = []
    presence = Presence(
        south, north, ROUTE, lambda: alive("gw-1", "gateway"), lambda _topic, _payload, reason: refused.append(reason)
    )
    said = encode(alive("edge-tank"))
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(each.run()) for each in (north, south, edge, presence)]
        for link in (north, south, edge):
            await link.connected()
        await edge.publish(EDGE.alive, said, retain=True)
        topic = ROUTE.edge_alive("edge-tank")
        await eventually(lambda: [found.payload for found in above.retained(topic)] == [said])
        await eventually(lambda: above.retained(ROUTE.alive))

        await edge.publish(EDGE.alive, encode(alive("edge-zone")), retain=True)
        await edge.publish(EDGE.alive, b'{"v":99}', retain=True)
        await eventually(lambda: [reason.split(":")[0] for reason in refused] == ["impostor", "version"])
        assert [found.payload for found in above.retained(topic)] == [said]

        above.stop()
        above.start()
        await eventually(lambda: [found.payload for found in above.retained(topic)] == [said])

        await presence.say_goodbye()
        (last,) = above.retained(ROUTE.alive)
        assert decode(Alive, last.payload).online is False
        for task in running:
            task.cancel()
