"""A broker inside the process: the simplest real implementation of the link seam, with faults on request."""

from __future__ import annotations

import asyncio
import random

from wire.errors import Unavailable
from wire.runtime.inbox import Inbox, matches
from wire.runtime.link import Delivery


class MemoryBroker:
    """Carries messages between the ``MemoryLink``s that were given it.

    ``drop``, ``duplicate`` and ``reorder`` are probabilities per delivery (a reordered message waits for the next
    one); ``stop`` cuts every session and ``start`` lets them come back, with retained messages forgotten.
    """

    def __init__(self, *, drop: float = 0.0, duplicate: float = 0.0, reorder: float = 0.0, seed: int = 0) -> None:
        self.drop = drop
        self.duplicate = duplicate
        self.reorder = reorder
        self.links: set[MemoryLink] = set()
        self._rng = random.Random(seed)
        self._late: list[tuple[MemoryLink, Delivery]] = []
        self._retained: dict[str, bytes] = {}
        self._up = asyncio.Event()
        self._up.set()

    async def ready(self) -> None:
        """Wait until the broker runs."""
        await self._up.wait()

    def stop(self) -> None:
        """Cut every session and refuse new ones; what was retained or on its way is gone."""
        self._up.clear()
        self._late.clear()
        self._retained.clear()
        for link in list(self.links):
            link.cut()

    def start(self) -> None:
        """Accept sessions again."""
        self._up.set()

    def kick(self, link: MemoryLink) -> None:
        """Break one session as a failing network would: its will is published."""
        link.cut()
        if link.will is not None:
            self.carry(*link.will, retain=True)

    def carry(self, topic: str, payload: bytes, *, retain: bool) -> None:
        """Pass one message to every session, through the faults."""
        if retain:
            self._retained[topic] = payload
            if not payload:
                del self._retained[topic]
        late, self._late = self._late, []
        for link in sorted(self.links, key=id):
            self._pass(link, Delivery(topic, payload))
        for link, delivery in late:
            link.take(delivery)

    def retained(self, topic_filter: str) -> list[Delivery]:
        """The retained messages that a new subscriber gets."""
        levels = topic_filter.split("/")
        return [
            Delivery(topic, payload, retain=True)
            for topic, payload in self._retained.items()
            if matches(levels, topic.split("/"))
        ]

    def _pass(self, link: MemoryLink, delivery: Delivery) -> None:
        if self._rng.random() < self.drop:
            return
        if self._rng.random() < self.reorder:
            self._late.append((link, delivery))
        else:
            link.take(delivery)
        if self._rng.random() < self.duplicate:
            link.take(delivery)


class MemoryLink:
    """One session with a ``MemoryBroker``."""

    def __init__(self, broker: MemoryBroker, client_id: str = "", will: tuple[str, bytes] | None = None) -> None:
        self.client_id = client_id
        self.will = will
        self._broker = broker
        self._inboxes: list[Inbox] = []
        self._session = 0
        self._lost = asyncio.Event()
        self._changed = asyncio.Condition()

    async def run(self) -> None:
        while True:
            await self._broker.ready()
            self._lost.clear()
            self._session += 1
            self._broker.links.add(self)
            try:
                for inbox in self._inboxes:
                    self._catch_up(inbox)
                await self._announce()
                await self._lost.wait()
            finally:
                self._broker.links.discard(self)

    async def publish(self, topic: str, payload: bytes, *, qos: int = 0, retain: bool = False) -> None:
        del qos  # every quality of service is this lossy here
        if self not in self._broker.links:
            raise Unavailable("no session with the broker")
        self._broker.carry(topic, payload, retain=retain)
        await asyncio.sleep(0)

    def subscribe(self, topic_filter: str, *, qos: int = 0, capacity: int = 1024) -> Inbox:
        inbox = Inbox(topic_filter, qos, capacity)
        self._inboxes.append(inbox)
        if self in self._broker.links:
            self._catch_up(inbox)
        return inbox

    async def connected(self, after: int = 0) -> int:
        async with self._changed:
            await self._changed.wait_for(lambda: self._session > after and self in self._broker.links)
        return self._session

    def take(self, delivery: Delivery) -> None:
        """Hand a message to the subscribers, if the session is up."""
        if self in self._broker.links:
            for inbox in self._inboxes:
                inbox.offer(delivery)

    def cut(self) -> None:
        """End the session; ``run`` begins another when the broker lets it."""
        self._broker.links.discard(self)
        self._lost.set()

    def _catch_up(self, inbox: Inbox) -> None:
        for delivery in self._broker.retained(inbox.topic_filter):
            inbox.offer(delivery)

    async def _announce(self) -> None:
        async with self._changed:
            self._changed.notify_all()
