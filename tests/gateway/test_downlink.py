"""Setpoints pass at once, byte for byte, or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from gateway.downlink import MAX_BYTES, pass_down
from wire.runtime.memory import MemoryBroker, MemoryLink
from wire.runtime.observe import Counters
from wire.topics import EdgeRoute, GatewayRoute

ROUTE = GatewayRoute("demo", "gw-1")
EDGE = EdgeRoute("demo", "gw-1", "edge-tank")

Eventually = Callable[..., Awaitable[None]]


async def test_bytes_arrive_unchanged_and_rubbish_does_not(eventually: Eventually) -> None:
    above, below = MemoryBroker(), MemoryBroker()
    cloud, north, south, edge = (MemoryLink(broker) for broker in (above, above, below, below))
    heard, counters = edge.subscribe(EDGE.setpoint), Counters()
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(link.run()) for link in (cloud, north, south, edge)]
        running.append(tasks.create_task(pass_down(north, south, ROUTE, counters)))
        for link in (cloud, north, south, edge):
            await link.connected()
        await asyncio.sleep(0)
        await cloud.publish(ROUTE.setpoint("edge-tank"), b"sig.\x00body", qos=1)
        await cloud.publish(ROUTE.setpoint("edge-tank"), b"x" * (MAX_BYTES + 1), qos=1)
        assert (await anext(heard)).payload == b"sig.\x00body"
        await eventually(lambda: counters.reasons == {"oversize": 1})
        assert counters.sent == 1
        for task in running:
            task.cancel()


async def test_nothing_retained_and_nothing_kept_for_later(eventually: Eventually) -> None:
    above, below = MemoryBroker(), MemoryBroker()
    cloud, north, south, edge = (MemoryLink(broker) for broker in (above, above, below, below))
    heard, counters = edge.subscribe(EDGE.setpoint), Counters()
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(link.run()) for link in (cloud, north, south, edge)]
        for link in (cloud, north, south, edge):
            await link.connected()
        await cloud.publish(ROUTE.setpoint("edge-tank"), b"from a retaining stranger", retain=True)
        running.append(tasks.create_task(pass_down(north, south, ROUTE, counters)))
        await eventually(lambda: counters.reasons.get("retained") == 1)
        below.stop()
        await cloud.publish(ROUTE.setpoint("edge-tank"), b"while the south is away")
        await eventually(lambda: counters.reasons.get("south-away") == 1)
        below.start()
        await edge.connected(1)
        await south.connected(1)
        await cloud.publish(ROUTE.setpoint("edge-tank"), b"fresh")
        assert (await anext(heard)).payload == b"fresh"
        for task in running:
            task.cancel()
