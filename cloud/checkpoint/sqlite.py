"""Checkpoints in one SQLite file: the default on one machine, also between processes that share the file."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Self

from cloud.checkpoint.base import Claim
from cloud.checkpoint.memory import refuse_if_fenced
from cloud.sqlite import Database

SCHEMA = """
CREATE TABLE IF NOT EXISTS shard (shard INTEGER PRIMARY KEY, term INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS blob (
    shard INTEGER NOT NULL REFERENCES shard (shard), key TEXT NOT NULL, data BLOB NOT NULL,
    PRIMARY KEY (shard, key)) WITHOUT ROWID;
"""
RAISE_TERM = "INSERT INTO shard VALUES (?, 1) ON CONFLICT (shard) DO UPDATE SET term = term + 1"
PUT_BLOB = "INSERT INTO blob VALUES (?, ?, ?) ON CONFLICT (shard, key) DO UPDATE SET data = excluded.data"


class SqliteCheckpoint:
    """Claims and saves are transactions of one file, so compare-and-set needs nothing more."""

    def __init__(self, path: Path) -> None:
        self._database = Database(path, SCHEMA)

    async def __aenter__(self) -> Self:
        await self._database.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._database.__aexit__(*exc)

    async def claim(self, shards: Iterable[int]) -> list[Claim]:
        wanted = sorted(set(shards))
        return await self._database.write(lambda connection: _claim(connection, wanted))

    async def save(self, terms: Mapping[int, int], blobs: Mapping[tuple[int, str], bytes]) -> None:
        await self._database.write(lambda connection: _save(connection, terms, blobs))


def _claim(connection: sqlite3.Connection, shards: list[int]) -> list[Claim]:
    connection.executemany(RAISE_TERM, ((shard,) for shard in shards))
    terms = _terms(connection)
    blobs: dict[int, dict[str, bytes]] = {shard: {} for shard in shards}
    for shard, key, data in connection.execute("SELECT shard, key, data FROM blob"):
        if shard in blobs:
            blobs[shard][key] = data
    return [Claim(shard, terms[shard], blobs[shard]) for shard in shards]


def _save(connection: sqlite3.Connection, terms: Mapping[int, int], blobs: Mapping[tuple[int, str], bytes]) -> None:
    refuse_if_fenced(_terms(connection), terms, blobs)
    connection.executemany(PUT_BLOB, ((shard, key, data) for (shard, key), data in blobs.items()))


def _terms(connection: sqlite3.Connection) -> dict[int, int]:
    return dict(connection.execute("SELECT shard, term FROM shard").fetchall())
