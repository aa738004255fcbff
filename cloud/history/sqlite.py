"""History in one SQLite file: the embedded default.

Readings stay in the packed rows in which they came, one blob for each record, so that storing ten thousand readings
costs a few hundred inserts; a query joins the blobs and takes its rows out with numpy. Estimates are one row per twin
and time. Reading has a connection of its own and never holds up an ``append``.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from itertools import groupby
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from cloud.history.base import Batch, Bytes, EstimateRows, Event, Floats, Ints, RawChunk, Readings
from cloud.history.config import SqliteConfig
from cloud.history.rows import EstimateRow, assemble, check, newest
from cloud.sqlite import Database
from wire.points import PointId

ROW = np.dtype([("time", "<i8"), ("value", "<f8"), ("point", "<i4"), ("ordinal", "<i4"), ("quality", "u1")])
"""One reading as it is stored: 25 bytes, no padding."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS points (id INTEGER PRIMARY KEY, names TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS chunk (
    source TEXT NOT NULL, epoch INTEGER NOT NULL, seq INTEGER NOT NULL,
    first INTEGER NOT NULL, last INTEGER NOT NULL,
    points INTEGER NOT NULL REFERENCES points (id), rows BLOB NOT NULL, side TEXT,
    PRIMARY KEY (source, epoch, seq));
CREATE INDEX IF NOT EXISTS chunk_by_time ON chunk (source, last, first);
CREATE TABLE IF NOT EXISTS model (hash TEXT PRIMARY KEY, states TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS estimate (
    twin TEXT NOT NULL, time INTEGER NOT NULL, model TEXT NOT NULL, revision INTEGER NOT NULL, row BLOB NOT NULL,
    PRIMARY KEY (twin, time)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS event (
    id TEXT PRIMARY KEY, time INTEGER NOT NULL, kind TEXT NOT NULL, subject TEXT NOT NULL, text TEXT NOT NULL)
    WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS event_by_time ON event (subject, time);
"""

PUT_ESTIMATE = """
INSERT INTO estimate VALUES (?, ?, ?, ?, ?) ON CONFLICT (twin, time) DO UPDATE
SET model = excluded.model, revision = excluded.revision, row = excluded.row
WHERE excluded.model <> model OR excluded.revision >= revision
"""
GET_CHUNKS = "SELECT points, rows FROM chunk WHERE source = ? AND last >= ? AND first < ? ORDER BY rowid"
GET_ESTIMATES = """
SELECT time, model, states, revision, row FROM estimate JOIN model ON model.hash = estimate.model
WHERE twin = ? AND time >= ? AND time < ? ORDER BY time
"""
GET_EVENTS = (
    "SELECT id, time, kind, subject, text FROM event WHERE subject = ? AND time >= ? AND time < ? ORDER BY 2, 1"
)


def open_store(config: SqliteConfig, state: Path) -> SqliteHistory:
    """``history.db`` in the state folder."""
    return SqliteHistory(state / "history.db")


class SqliteHistory:
    """Write-ahead log, every append fully synced."""

    def __init__(self, path: Path) -> None:
        self._writer = Database(path, SCHEMA)
        self._reader = Database(path)
        self._opened = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as opening:
            await opening.enter_async_context(self._writer)
            await opening.enter_async_context(self._reader)
            self._opened = opening.pop_all()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._opened.aclose()

    async def append(self, batch: Batch) -> None:
        for chunk in batch.chunks:
            check(chunk)
        await self._writer.write(lambda connection: _append(connection, batch))

    async def readings(self, point: PointId, start: int, end: int) -> Readings:
        return await self._reader.read(lambda connection: _readings(connection, point, start, end))

    async def estimates(self, twin: str, start: int, end: int) -> EstimateRows:
        return await self._reader.read(lambda connection: _estimates(connection, twin, start, end))

    async def events(self, subject: str, start: int, end: int) -> list[Event]:
        return await self._reader.read(
            lambda connection: [Event(*row) for row in connection.execute(GET_EVENTS, (subject, start, end))]
        )


def _append(connection: sqlite3.Connection, batch: Batch) -> None:
    if batch.chunks:
        ids: dict[int, int] = {}
        for chunk in batch.chunks:
            if id(chunk.points) not in ids:
                ids[id(chunk.points)] = _points_id(connection, chunk.points)
        rows = (_chunk_row(chunk, ids[id(chunk.points)]) for chunk in batch.chunks)
        connection.executemany("INSERT OR REPLACE INTO chunk VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
    for estimates in batch.estimates:
        model = (estimates.type_hash, json.dumps(estimates.states))
        connection.execute("INSERT OR IGNORE INTO model VALUES (?, ?)", model)
        connection.executemany(PUT_ESTIMATE, _estimate_rows(estimates))
    events = ((event.id, event.time, event.kind, event.subject, event.text) for event in batch.events)
    connection.executemany("INSERT OR REPLACE INTO event VALUES (?, ?, ?, ?, ?)", events)


def _points_id(connection: sqlite3.Connection, points: Sequence[PointId]) -> int:
    names = json.dumps([str(point) for point in points])
    connection.execute("INSERT OR IGNORE INTO points (names) VALUES (?)", (names,))
    return int(connection.execute("SELECT id FROM points WHERE names = ?", (names,)).fetchone()[0])


def _chunk_row(chunk: RawChunk, points: int) -> tuple[str, int, int, int, int, int, bytes, str | None]:
    rows = np.empty(len(chunk.point), dtype=ROW)
    rows["time"], rows["value"], rows["point"] = chunk.time, chunk.value, chunk.point
    rows["ordinal"], rows["quality"] = chunk.ordinal, chunk.quality
    first, last = (int(chunk.time.min()), int(chunk.time.max())) if len(rows) else (0, -1)
    side = json.dumps(sorted(chunk.side.items())) if chunk.side else None
    return chunk.source, chunk.epoch, chunk.seq, first, last, points, rows.tobytes(), side


def _estimate_rows(estimates: EstimateRows) -> Iterator[tuple[str, int, str, int, bytes]]:
    packed = np.ascontiguousarray(np.hstack([estimates.mean, estimates.sigma]), dtype="<f8")  # (R, 2n)
    times, revisions = estimates.time.tolist(), estimates.revision.tolist()
    for index, twin in enumerate(estimates.twin):
        yield twin, times[index], estimates.type_hash, revisions[index], packed[index].tobytes()


def _readings(connection: sqlite3.Connection, point: PointId, start: int, end: int) -> Readings:
    found = connection.execute(GET_CHUNKS, (point.source, start, end))
    picked = [
        rows[(rows["point"] == index) & (rows["time"] >= start) & (rows["time"] < end)]
        for names, rows in _runs(connection, found)
        if (index := _index(names, str(point))) is not None
    ]
    rows = np.concatenate(picked or [np.empty(0, dtype=ROW)])
    time: Ints = rows["time"].astype(np.int64)
    value: Floats = rows["value"].astype(np.float64)
    quality: Bytes = rows["quality"].copy()
    return newest(time, rows["ordinal"].astype(np.int64), value, quality)


def _runs(connection: sqlite3.Connection, found: sqlite3.Cursor) -> Iterator[tuple[list[str], npt.NDArray[np.void]]]:
    """Rows as written, joined over neighbours of one schema, with the schema's point names."""
    schemas: dict[int, list[str]] = {}
    for schema, run in groupby(found, key=lambda row: int(row[0])):
        if schema not in schemas:
            names = connection.execute("SELECT names FROM points WHERE id = ?", (schema,)).fetchone()[0]
            schemas[schema] = json.loads(names)
        yield schemas[schema], np.frombuffer(b"".join(row[1] for row in run), dtype=ROW)


def _index(names: list[str], name: str) -> int | None:
    return names.index(name) if name in names else None


def _estimates(connection: sqlite3.Connection, twin: str, start: int, end: int) -> EstimateRows:
    times: list[int] = []
    rows: list[EstimateRow] = []
    states: dict[str, tuple[str, ...]] = {}
    for time, model, names, revision, packed in connection.execute(GET_ESTIMATES, (twin, start, end)):
        if model not in states:
            states[model] = tuple(json.loads(names))
        mean, sigma = np.frombuffer(packed, dtype="<f8").reshape(2, -1)
        times.append(time)
        rows.append(EstimateRow(model, states[model], revision, mean, sigma))
    return assemble(twin, times, rows)
