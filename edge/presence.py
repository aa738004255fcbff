"""What an edge says of itself: presence with its boot nonce, and newest values while a backlog drains."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from edge.assembly import Assembly
from wire.codec import encode, encode_record, join_frame
from wire.errors import Unavailable
from wire.messages import Alive, PointRevision, ReadingsBody, Record
from wire.runtime.link import Link
from wire.topics import EdgeRoute

REPEAT_S = 10.0
BEHIND_S = 10.0
"""From this age of the oldest unsent reading on, newest values overtake the backlog."""
GLANCE_S = 1.0
_EARLIEST_NS = 1_704_067_200_000_000_000
"""2024-01-01: a clock before it has lost its battery and never seen a time server."""


def clock_trusted(now: int) -> bool:
    """False for a clock that cannot be right; without a trusted clock no setpoint is obeyed."""
    return now >= _EARLIEST_NS


class Presence:
    """Publishes the edge's Alive message, retained: at every new session, on every change, and every ten seconds."""

    def __init__(
        self,
        assembly: Assembly,
        nonce: str,
        link: Link,
        *,
        now: Callable[[], int],
        backlog: Callable[[], int],
        revisions: Callable[[], Iterable[PointRevision]],
    ) -> None:
        config = assembly.config
        self._assembly = assembly
        self._nonce = nonce
        self._link = link
        self._now = now
        self._backlog = backlog
        self._revisions = revisions
        self._topic = EdgeRoute(config.site, config.gateway, config.edge).alive
        self._changed = asyncio.Event()

    def changed(self) -> None:
        """Say it again soon."""
        self._changed.set()

    async def run(self) -> None:
        """Repeat for as long as the edge lives."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow_sessions(), name="presence/sessions")
            while True:
                self._changed.clear()
                await self.say(online=True)
                try:
                    async with asyncio.timeout(REPEAT_S):
                        await self._changed.wait()
                except TimeoutError:
                    continue

    async def say(self, *, online: bool) -> None:
        """One message now; without a connection nobody hears it, and the next session says it again."""
        message = alive(
            self._assembly, self._nonce, self._now(), online, self._backlog(), list(self._revisions()) if online else []
        )
        try:
            await self._link.publish(self._topic, encode(message), qos=1, retain=True)
        except Unavailable:
            return

    async def _follow_sessions(self) -> None:
        session = 0
        while True:
            session = await self._link.connected(session)
            self.changed()


def alive(
    assembly: Assembly,
    nonce: str,
    now: int,
    online: bool,
    backlog: int = 0,
    revisions: list[PointRevision] | None = None,
) -> Alive:
    """The message; also the last will, made before the first connection."""
    config, schema = assembly.config, assembly.schema
    return Alive(
        site=config.site,
        name=config.edge,
        role="edge",
        online=online,
        at=now,
        nonce=nonce,
        clock_trusted=clock_trusted(now),
        backlog=backlog,
        version=assembly.version,
        config_hash=schema.config_hash,
        schema_hash=schema.schema_hash,
        revisions=revisions or [],
    )


async def glance(
    link: Link, topic: str, source: str, behind: Callable[[], float], newest: Callable[[], ReadingsBody | None]
) -> None:
    """While the backlog is old, publish the newest value of every point; nobody acknowledges these."""
    while True:
        await asyncio.sleep(GLANCE_S)
        body = newest() if behind() > BEHIND_S else None
        if body is None:
            continue
        record = Record(source=source, stream="telemetry", epoch=0, seq=-1, body=body)
        try:
            await link.publish(topic, join_frame([encode_record(record)]))
        except Unavailable:
            await link.connected()
