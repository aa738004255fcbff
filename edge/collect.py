"""The way of every reading from its driver to the disk: one batch for all devices, one commit after the other."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence

from edge.batch import Batch
from edge.drivers.base import Samples
from edge.stamps import Stamps
from wire.errors import Unavailable
from wire.messages import ReadingsBody
from wire.quality import FIRST_BAD
from wire.runtime.observe import Counters, Health
from wire.runtime.outbox import Outbox
from wire.runtime.service import backoff

CAPACITY = 20_000
"""Rows gathered while a commit runs; when there are more, whoever brings samples waits."""
_RECENT = 32
_RETRY_CAP_S = 1.0


class Collector:
    """Natural group commit: a record holds what arrived while the last one was being written."""

    def __init__(
        self,
        batch: Batch,
        outbox: Outbox,
        stamps: Stamps,
        counters: Counters,
        health: Health,
        *,
        now: Callable[[], int],
    ) -> None:
        self._batch = batch
        self._outbox = outbox
        self._stamps = stamps
        self._counters = counters
        self._health = health
        self._now = now
        self._some = asyncio.Event()
        self._room = asyncio.Event()
        self._recent: deque[ReadingsBody] = deque(maxlen=_RECENT)
        self._under_way: tuple[ReadingsBody, asyncio.Task[None]] | None = None

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
            self._some.clear()
            await self.flush()

    async def flush(self, *, last: bool = False) -> None:
        """Commit everything that has been gathered; while the disk refuses, it waits and takes nothing more.

        A commit goes on when its caller is cancelled, so that the ``last`` flush learns what became of it: readings
        whose stamps were not kept would be read a second time after the restart.
        """
        while True:
            if self._under_way is None:
                if (body := self._batch.take()) is None:
                    return
                self._room.set()
                self._under_way = body, asyncio.create_task(self._commit(body), name="collector/commit")
            body, commit = self._under_way
            await (commit if last else asyncio.shield(commit))
            self._under_way = None
            self._counters.sent += len(body.point)
            self._recent.append(body)
            self._keep_stamps(body)

    def newest(self) -> ReadingsBody | None:
        """The newest value of every point in the latest commits, for a look past a backlog."""
        newest: dict[int, tuple[int, float]] = {}
        for body in self._recent:
            newest.update(_values(body))
        if not newest:
            return None
        base = min(time for time, _ in newest.values())
        return ReadingsBody(
            schema_hash=self._recent[-1].schema_hash,
            base=base,
            point=list(newest),
            dt=[time - base for time, _ in newest.values()],
            value=[value for _, value in newest.values()],
        )

    async def _commit(self, body: ReadingsBody) -> None:
        for pause in backoff(_RETRY_CAP_S):
            try:
                await self._outbox.append("telemetry", body, len(body.point))
            except Unavailable as error:
                self._counters.fail("outbox")
                self._health.lost("outbox", str(error))
                await asyncio.sleep(pause)
            else:
                self._health.back("outbox")
                return

    def _keep_stamps(self, body: ReadingsBody) -> None:
        """Only stamps that a source gave: they alone can be repeated."""
        if body.lag is None:
            return
        for point, dt, lag in zip(body.point, body.dt, body.lag, strict=True):
            if lag:
                self._stamps.set(point, body.base + dt)


def _values(body: ReadingsBody) -> Iterator[tuple[int, tuple[int, float]]]:
    """(point, (time, value)) of every row that has a number."""
    values = iter(body.value)
    side = {row for row, _ in body.side}
    quality = body.quality or [0] * len(body.point)
    for row, (point, dt) in enumerate(zip(body.point, body.dt, strict=True)):
        if quality[row] < FIRST_BAD and row not in side:
            yield point, (body.base + dt, next(values))
