"""What a link needs to hand messages to its subscribers: bounded inboxes and topic filters."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Self

from wire.runtime.link import Delivery


class Inbox:
    """Messages of one filter, oldest first; when full, the oldest is dropped and counted."""

    def __init__(self, topic_filter: str, qos: int, capacity: int) -> None:
        self.topic_filter = topic_filter
        self.qos = qos
        self.dropped = 0
        self._levels = topic_filter.split("/")
        self._capacity = capacity
        self._waiting: deque[Delivery] = deque()
        self._filled = asyncio.Event()

    def __len__(self) -> int:
        return len(self._waiting)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Delivery:
        while not self._waiting:
            self._filled.clear()
            await self._filled.wait()
        return self._waiting.popleft()

    def offer(self, delivery: Delivery) -> None:
        """Take a message if its topic matches."""
        if not matches(self._levels, delivery.topic.split("/")):
            return
        if len(self._waiting) >= self._capacity:
            self._waiting.popleft()
            self.dropped += 1
        self._waiting.append(delivery)
        self._filled.set()


def matches(filter_levels: list[str], topic_levels: list[str]) -> bool:
    """MQTT 5 section 4.7: ``+`` is one level, a final ``#`` the rest; wildcards do not match a leading ``$``."""
    if topic_levels[0].startswith("$") and filter_levels[0] in ("+", "#"):
        return False
    for index, wanted in enumerate(filter_levels):
        if wanted == "#":
            return True
        if index >= len(topic_levels) or wanted not in ("+", topic_levels[index]):
            return False
    return len(filter_levels) == len(topic_levels)
