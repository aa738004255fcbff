"""Setpoints on their way down: passed on at once or not at all, never kept, never looked into.

The signature is between the cloud and the edge; what passes here is bytes.
"""

from __future__ import annotations

from wire.errors import Unavailable
from wire.runtime.link import Link
from wire.runtime.observe import Counters
from wire.topics import EdgeRoute, GatewayRoute, edge_of

MAX_BYTES = 4_096
"""A signed setpoint is smaller; anything larger is not one."""
WAITING = 64
"""Setpoints that may wait for the broker's receipt of the one before; the oldest gives way."""


async def pass_down(north: Link, south: Link, route: GatewayRoute, counters: Counters) -> None:
    """Until cancelled. Both links carry nothing else, so telemetry cannot hold a setpoint up."""
    async for delivery in north.subscribe(route.setpoints, qos=1, capacity=WAITING):
        counters.received += 1
        if delivery.retain:
            counters.drop("retained")
        elif len(delivery.payload) > MAX_BYTES:
            counters.drop("oversize")
        else:
            edge = EdgeRoute(route.site, route.gateway, edge_of(delivery.topic))
            try:
                await south.publish(edge.setpoint, delivery.payload, qos=1)
                counters.sent += 1
            except Unavailable:
                counters.drop("south-away")
