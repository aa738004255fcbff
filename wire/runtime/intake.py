"""(being filled) Takes records in, commits them, answers."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping

from wire.delivery import Position, Received, Receiver, StreamKey
from wire.runtime.link import Link
from wire.runtime.observe import Counters


class Intake:
    """``refused(topic, payload, reason)`` sets a payload aside that is no frame; the pipeline goes on."""

    def __init__(
        self,
        link: Link,
        topic_filter: str,
        receiver: Receiver,
        commit: Callable[[list[Received], Mapping[StreamKey, Position]], Awaitable[None]],
        ack_topic: Callable[[str], str],
        *,
        term: Callable[[], int],
        linger_s: float = 0.0,
        max_readings: int = 5000,
        refused: Callable[[str, bytes, str], None] | None = None,
        counters: Counters | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None: ...

    async def run(self) -> None: ...
