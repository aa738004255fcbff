"""(being filled) Sends an outbox's records up."""

from __future__ import annotations

import time
from collections.abc import Callable

from wire.runtime.link import Link
from wire.runtime.observe import Counters
from wire.runtime.outbox import Outbox


class Uplink:
    def __init__(
        self,
        outbox: Outbox,
        link: Link,
        *,
        up_topic: Callable[[str], str],
        ack_topic: str,
        counters: Counters | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.lag_s = 0.0
        """Age of the oldest record that the next hop has not committed."""

    async def run(self) -> None: ...
