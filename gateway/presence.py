"""Who is there: edges announce themselves to the gateway, the gateway passes that on and announces itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from wire.codec import decode, encode
from wire.errors import BadData, Unavailable
from wire.messages import Alive
from wire.runtime.link import Link
from wire.topics import GatewayRoute, edge_of, edges_alive

REPEAT_S = 10.0
MAX_EDGES = 1_024
"""More names than a gateway serves are somebody's mistake or mischief."""


class Presence:
    """Relays the edges' presence as retained messages, each with its own stamp and nonce.

    A broker that was restarted has forgotten what was retained, so everything is said again on every new session and
    every ten seconds.
    """

    def __init__(
        self,
        south: Link,
        north: Link,
        route: GatewayRoute,
        own: Callable[[], Alive],
        refused: Callable[[str, bytes, str], None],
    ) -> None:
        self._south = south
        self._north = north
        self._route = route
        self._own = own
        self._refused = refused
        self._edges: dict[str, bytes] = {}

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._listen(), name="presence/listen")
            tasks.create_task(self._repeat(), name="presence/repeat")

    async def say_goodbye(self) -> None:
        """The farewell of a clean stop; without it the broker would speak the last will."""
        try:
            await self._north.publish(self._route.alive, farewell(self._own()), retain=True)
        except Unavailable:
            return

    async def _listen(self) -> None:
        async for delivery in self._south.subscribe(edges_alive(self._route.site, self._route.gateway)):
            edge = edge_of(delivery.topic)
            try:
                self._check(edge, decode(Alive, delivery.payload))
            except BadData as error:
                self._refused(delivery.topic, delivery.payload, str(error))
                continue
            self._edges[edge] = delivery.payload
            await self._publish(self._route.edge_alive(edge), delivery.payload)

    def _check(self, edge: str, alive: Alive) -> None:
        if (alive.site, alive.name, alive.role) != (self._route.site, edge, "edge"):
            raise BadData("impostor", f"{alive.role} {alive.site}/{alive.name} on the topic of edge {edge}")
        if edge not in self._edges and len(self._edges) >= MAX_EDGES:
            raise BadData("too-many-edges", f"{edge} would be number {MAX_EDGES + 1}")

    async def _repeat(self) -> None:
        session = 0
        while True:
            try:
                async with asyncio.timeout(REPEAT_S):
                    session = await self._north.connected(session)
            except TimeoutError:
                pass  # still the same session: time to repeat
            await self._publish(self._route.alive, encode(self._own()))
            for edge, payload in list(self._edges.items()):
                await self._publish(self._route.edge_alive(edge), payload)

    async def _publish(self, topic: str, payload: bytes) -> None:
        try:
            await self._north.publish(topic, payload, retain=True)
        except Unavailable:
            return  # the next session says it again


def farewell(alive: Alive) -> bytes:
    """What a last will says."""
    return encode(alive.model_copy(update={"online": False}))
