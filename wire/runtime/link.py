"""The seam to a message broker.

Call order: ``subscribe`` at any time, ``run`` once, in a task of its own, for as long as the process lives. ``run``
connects, subscribes, and reconnects after every loss until it is cancelled; it never raises for a broker that is away.
A lossy pipe is all that is promised: a published message may vanish, repeat or overtake another.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol, Self


class Delivery(NamedTuple):
    """One received message."""

    topic: str
    payload: bytes
    retain: bool = False


class Subscription(Protocol):
    """Messages of one filter, oldest first; bounded: when full, the oldest is dropped and counted."""

    @property
    def dropped(self) -> int:
        """Messages lost to a full queue so far."""
        ...

    def __aiter__(self) -> Self: ...

    async def __anext__(self) -> Delivery: ...


class Link(Protocol):
    """One connection to one broker, owned by one task."""

    async def run(self) -> None:
        """Keep the connection up until cancelled."""
        ...

    async def publish(self, topic: str, payload: bytes, *, qos: int = 0, retain: bool = False) -> None:
        """Hand a message to the broker; raises Unavailable at once while there is no connection."""
        ...

    def subscribe(self, topic_filter: str, *, qos: int = 0, capacity: int = 1024) -> Subscription:
        """Receive a filter's messages, now and after every reconnection."""
        ...

    async def connected(self, after: int = 0) -> int:
        """Wait until the link is up in a session numbered above ``after``; returns that session's number (from 1)."""
        ...
