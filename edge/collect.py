"""The way of every reading from its driver to the disk: one batch for all devices, one commit after the other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from edge.batch import Batch
from edge.drivers.base import Samples
from edge.stamps import Stamps
from wire.messages import ReadingsBody
from wire.quality import FIRST_BAD
from wire.runtime.observe import Counters
from wire.runtime.outbox import Outbox

CAPACITY = 20_000
"""Rows gathered while a commit runs; when there are more, whoever brings samples waits."""


class Collector:
    """Natural group commit: a record holds what arrived while the last one was being written."""

    def __init__(
        self, batch: Batch, outbox: Outbox, stamps: Stamps, counters: Counters, *, now: Callable[[], int]
    ) -> None:
        self._batch = batch
        self._outbox = outbox
        self._stamps = stamps
        self._counters = counters
        self._now = now
        self._some = asyncio.Event()
        self._room = asyncio.Event()
        self._newest: dict[int, tuple[int, float]] = {}
        self._schema_hash = ""

    async def add(self, offset: int, samples: Samples) -> None:
        """Take samples that have just been read."""
        self._batch.add(offset, samples, self._now())
        self._some.set()
        while len(self._batch) > CAPACITY:
            self._room.clear()
            await self._room.wait()

    def begin(self, points: Sequence[int]) -> None:
        """These points' source has a new session and may repeat its newest values."""
        self._batch.resume(points, self._stamps.get)

    async def run(self) -> None:
        """Commit, until cancelled."""
        while True:
            await self._some.wait()
            body = self._batch.take()
            if body is None:
                self._some.clear()
                continue
            self._room.set()
            await self._outbox.append("telemetry", body, len(body.point))
            self._counters.sent += len(body.point)
            self._remember(body)

    def newest(self) -> ReadingsBody | None:
        """The newest committed value of every point that has one, for a look past a backlog."""
        if not self._newest:
            return None
        rows = sorted(self._newest.items())
        base = min(time for _, (time, _) in rows)
        return ReadingsBody(
            schema_hash=self._schema_hash,
            base=base,
            point=[point for point, _ in rows],
            dt=[time - base for _, (time, _) in rows],
            value=[value for _, (_, value) in rows],
        )

    def _remember(self, body: ReadingsBody) -> None:
        self._schema_hash = body.schema_hash
        values = iter(body.value)
        side = {row for row, _ in body.side}
        quality = body.quality or [0] * len(body.point)
        for row, (point, dt) in enumerate(zip(body.point, body.dt, strict=True)):
            self._stamps.set(point, body.base + dt)
            if quality[row] < FIRST_BAD and row not in side:
                self._newest[point] = (body.base + dt, next(values))
