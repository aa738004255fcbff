"""What the stores share: which of several writings of one row counts, and what an empty answer looks like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cloud.history.base import Bytes, EstimateRows, Floats, Ints, RawChunk, Readings
from wire.errors import BadData
from wire.quality import FIRST_BAD


@dataclass(frozen=True, slots=True)
class EstimateRow:
    """One estimate of one twin at one time; n states, SI."""

    type_hash: str
    states: tuple[str, ...]
    revision: int
    mean: Floats
    sigma: Floats

    def replaces(self, other: EstimateRow | None) -> bool:
        """A row gives way to a newer revision and to another type; a repeat replaces itself."""
        return other is None or self.type_hash != other.type_hash or self.revision >= other.revision


def newest(time: Ints, ordinal: Ints, value: Floats, quality: Bytes) -> Readings:
    """Readings in (time, ordinal) order; of equal ones the last written counts. Bad readings lose their value."""
    order = np.lexsort((np.arange(len(time)), ordinal, time))
    last = np.ones(len(order), dtype=np.bool_)
    if len(order) > 1:
        after, before = order[1:], order[:-1]
        last[:-1] = (time[after] != time[before]) | (ordinal[after] != ordinal[before])
    kept = order[last]
    return Readings(
        time=time[kept],
        ordinal=ordinal[kept],
        value=np.where(quality[kept] < FIRST_BAD, value[kept], np.nan),
        quality=quality[kept],
    )


def select(chunk: RawChunk, point: int, start: int, end: int) -> npt.NDArray[np.bool_]:
    """Rows (R,) of one point of the chunk's schema within [start, end)."""
    rows: npt.NDArray[np.bool_] = (chunk.point == point) & (chunk.time >= start) & (chunk.time < end)
    return rows


def assemble(twin: str, times: Sequence[int], rows: Sequence[EstimateRow]) -> EstimateRows:
    """One answer from rows in time order. Where the type changed meanwhile, only the newest type's rows fit."""
    if not rows:
        nothing = np.zeros(0, dtype=np.int64)
        return EstimateRows("", (), [], nothing, np.zeros((0, 0)), np.zeros((0, 0)), nothing)
    newest_type = rows[-1].type_hash
    fitting = [(time, row) for time, row in zip(times, rows, strict=True) if row.type_hash == newest_type]
    return EstimateRows(
        type_hash=newest_type,
        states=rows[-1].states,
        twin=[twin] * len(fitting),
        time=np.array([time for time, _ in fitting], dtype=np.int64),
        mean=np.stack([row.mean for _, row in fitting]),
        sigma=np.stack([row.sigma for _, row in fitting]),
        revision=np.array([row.revision for _, row in fitting], dtype=np.int64),
    )


def check(chunk: RawChunk) -> None:
    """Refuse a chunk whose columns disagree, before any store has written a part of it."""
    rows = len(chunk.point)
    columns = (chunk.time, chunk.ordinal, chunk.value, chunk.quality)
    if any(len(column) != rows for column in columns):
        raise BadData("columns", f"{chunk.source} {chunk.epoch}/{chunk.seq}: columns of different lengths")
    if rows and not 0 <= int(chunk.point.min()) <= int(chunk.point.max()) < len(chunk.points):
        raise BadData("point-index", f"{chunk.source} {chunk.epoch}/{chunk.seq}: a row names no point of its schema")
