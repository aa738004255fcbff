"""The queue of messages that wait for their time."""

from __future__ import annotations

import time

from simulators.servers.base import Outgoing


async def test_outgoing_keeps_its_times_and_its_bound() -> None:
    outgoing: Outgoing[str] = Outgoing(capacity=3)
    outgoing.put("late", 0.05)
    outgoing.put("now")
    assert await outgoing.get() == "now"
    begun = time.monotonic()
    assert await outgoing.get() == "late"
    assert time.monotonic() - begun >= 0.03
    for item in "abcd":
        outgoing.put(item)
    assert outgoing.dropped == 1
    assert [await outgoing.get() for _ in range(3)] == ["b", "c", "d"]
