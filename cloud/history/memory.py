"""History in memory: the simplest implementation that keeps the contract, for tests and for trying things out."""

from __future__ import annotations

from pathlib import Path
from typing import Self

import numpy as np

from cloud.history.base import Batch, EstimateRows, Event, RawChunk, Readings
from cloud.history.config import MemoryConfig
from cloud.history.rows import EstimateRow, assemble, check, newest, select
from wire.points import PointId


def open_store(config: MemoryConfig, state: Path) -> MemoryHistory:
    """An empty store; neither argument is used."""
    return MemoryHistory()


class MemoryHistory:
    """Lives as long as the object does. Unbounded by purpose: it keeps what it is given."""

    def __init__(self) -> None:
        self._chunks: dict[tuple[str, int, int], RawChunk] = {}
        self._estimates: dict[str, dict[int, EstimateRow]] = {}
        self._events: dict[str, Event] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        return None

    async def append(self, batch: Batch) -> None:
        for chunk in batch.chunks:
            check(chunk)
        for chunk in batch.chunks:
            identity = (chunk.source, chunk.epoch, chunk.seq)
            self._chunks.pop(identity, None)
            self._chunks[identity] = chunk
        for rows in batch.estimates:
            self._keep(rows)
        self._events.update((event.id, event) for event in batch.events)

    async def readings(self, point: PointId, start: int, end: int) -> Readings:
        mine = [chunk for chunk in self._chunks.values() if chunk.source == point.source and point in chunk.points]
        picked = [(chunk, select(chunk, chunk.points.index(point), start, end)) for chunk in mine]
        return newest(
            np.concatenate([chunk.time[rows] for chunk, rows in picked] or [np.zeros(0, dtype=np.int64)]),
            np.concatenate([chunk.ordinal[rows] for chunk, rows in picked] or [np.zeros(0, dtype=np.int64)]),
            np.concatenate([chunk.value[rows] for chunk, rows in picked] or [np.zeros(0)]),
            np.concatenate([chunk.quality[rows] for chunk, rows in picked] or [np.zeros(0, dtype=np.uint8)]),
        )

    async def estimates(self, twin: str, start: int, end: int) -> EstimateRows:
        stored = self._estimates.get(twin, {})
        times = sorted(time for time in stored if start <= time < end)
        return assemble(twin, times, [stored[time] for time in times])

    async def events(self, subject: str, start: int, end: int) -> list[Event]:
        mine = [event for event in self._events.values() if event.subject == subject and start <= event.time < end]
        return sorted(mine, key=lambda event: (event.time, event.id))

    def _keep(self, rows: EstimateRows) -> None:
        for index, twin in enumerate(rows.twin):
            revision = int(rows.revision[index])
            row = EstimateRow(rows.type_hash, rows.states, revision, rows.mean[index].copy(), rows.sigma[index].copy())
            stored = self._estimates.setdefault(twin, {})
            time = int(rows.time[index])
            if row.replaces(stored.get(time)):
                stored[time] = row
