"""The server seam: shows a plant's samples on one real protocol and takes what is written to it.

A server module is found by its ``kind`` and exposes ``Config`` (frozen settings of the interface), ``Address`` (a
profile point as the device offers it) and ``Server(config, points, obey)``. Call order: ``serve`` once, in a task of
its own; ``show`` and ``impair`` at any time.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple, Protocol, TypeVar

from simulators.faults import Condition

T = TypeVar("T")

Obey = Callable[[str, float], None]
"""Hands a written value (point, engineering unit) to the plant; Rejected if the device refuses it."""


class Sample(NamedTuple):
    """One converted value; ``time`` is the device's own stamp in ns UTC, ``value`` None while the sensor gives none."""

    point: str
    time: int
    value: float | None


class Server(Protocol):
    """One device on one protocol."""

    async def serve(self) -> None:
        """Answer or push until cancelled; Unavailable if the address cannot be bound."""
        ...

    def show(self, samples: Sequence[Sample]) -> None:
        """Take newer samples; never waits."""
        ...

    def impair(self, condition: Condition) -> None:
        """Become slow, dead or well again."""
        ...


class Outgoing(Generic[T]):
    """Items that wait for their time on the loop's clock. Bounded: when full, the one that is due first is dropped."""

    def __init__(self, capacity: int = 10_000) -> None:
        self._capacity = capacity
        self._heap: list[tuple[float, int, T]] = []
        self._count = 0
        self._changed = asyncio.Event()
        self.dropped = 0

    def put(self, item: T, delay_s: float = 0.0) -> None:
        """Let an item out after ``delay_s``; equal times leave in the order of arrival."""
        self._count += 1
        heapq.heappush(self._heap, (asyncio.get_running_loop().time() + delay_s, self._count, item))
        if len(self._heap) > self._capacity:
            heapq.heappop(self._heap)
            self.dropped += 1
        self._changed.set()

    async def get(self) -> T:
        """The next item whose time has come."""
        loop = asyncio.get_running_loop()
        while True:
            self._changed.clear()
            if self._heap:
                wait = self._heap[0][0] - loop.time()
                if wait <= 0:
                    return heapq.heappop(self._heap)[2]
                try:
                    async with asyncio.timeout(wait):
                        await self._changed.wait()
                except TimeoutError:
                    continue
            else:
                await self._changed.wait()
