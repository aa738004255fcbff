"""The registry of twin types and twins: every revision of every document, and the newest ones compiled."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Self

from cloud.provision.plan import Catalogue, Change, SourceText, Stored, plan, restore
from cloud.sqlite import Database
from cloud.twins.model import Twin, TwinType

SCHEMA = """
CREATE TABLE IF NOT EXISTS documents (
  kind TEXT NOT NULL, name TEXT NOT NULL, revision INTEGER NOT NULL, digest TEXT NOT NULL, text TEXT NOT NULL,
  at INTEGER NOT NULL, PRIMARY KEY (kind, name, revision)
) WITHOUT ROWID;
"""

NEWEST = "SELECT kind, name, max(revision), text FROM documents GROUP BY kind, name ORDER BY kind, name"


class Registry:
    """Call order: enter, use, leave. Reading is from memory; only ``apply`` writes."""

    def __init__(self, path: Path, *, now: Callable[[], int]) -> None:
        self._database = Database(path, SCHEMA)
        self._now = now
        self._catalogue = Catalogue()
        self._revision = 0
        self._changed = asyncio.Event()
        self._turn = asyncio.Lock()

    async def __aenter__(self) -> Self:
        """Open and compile what is stored; raises ConfigError if this version cannot compile it any more."""
        async with AsyncExitStack() as opened:
            await opened.enter_async_context(self._database)
            stored = await self._database.read(_newest)
            self._catalogue = await asyncio.to_thread(restore, stored)
            self._revision = sum(item.revision for item in stored)
            opened.pop_all()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._database.__aexit__(*exc)

    @property
    def revision(self) -> int:
        """Grows with every apply that changed something; 0 while nothing is registered."""
        return self._revision

    def twin(self, name: str) -> Twin | None:
        """The twin registered under this name."""
        return self._catalogue.twins.get(name)

    def twins(self) -> Mapping[str, Twin]:
        """All twins by name; a new mapping after each change, never altered."""
        return self._catalogue.twins

    def types(self) -> Mapping[str, TwinType]:
        """All registered types by name; a new mapping after each change, never altered."""
        return self._catalogue.types

    async def apply(self, sources: Sequence[SourceText]) -> list[Change]:
        """Register types and twins: all of them or, with every problem in one ConfigError, none."""
        async with self._turn:
            worked_out = await asyncio.to_thread(plan, self._catalogue, sources)
            if not worked_out.writes:
                return worked_out.changes
            at = self._now()
            rows = [(item.kind, item.name, item.revision, item.digest, item.text, at) for item in worked_out.writes]
            await self._database.write(lambda connection: _insert(connection, rows))
            self._catalogue = worked_out.catalogue
            self._revision += len(rows)
            changed, self._changed = self._changed, asyncio.Event()
            changed.set()
            return worked_out.changes

    async def changed(self, after: int) -> int:
        """Wait until ``revision`` is above ``after``; returns it."""
        while self._revision <= after:
            await self._changed.wait()
        return self._revision


def _newest(connection: sqlite3.Connection) -> list[Stored]:
    return [Stored(*row) for row in connection.execute(NEWEST).fetchall()]


def _insert(connection: sqlite3.Connection, rows: Sequence[tuple[object, ...]]) -> None:
    connection.executemany("INSERT INTO documents VALUES (?, ?, ?, ?, ?, ?)", rows)
