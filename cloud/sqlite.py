"""An embedded SQLite file for asyncio: short blocking calls in a thread, one at a time, never abandoned half-way.

Call order: enter, any mix of ``read`` and ``write``, leave. A cancelled call is still awaited to its end before the
cancellation goes on, so nothing ever runs on a connection that is being closed.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Self, TypeVar

from wire.errors import ConfigError, Unavailable
from wire.runtime import files
from wire.runtime.blocking import finish

T = TypeVar("T")

PATIENCE_S = 5.0
"""How long a transaction waits for another process that holds the file."""
PRAGMAS = "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON;"


class Database:
    """One file, one connection. ``schema`` is a script of ``CREATE ... IF NOT EXISTS`` statements.

    Raises Unavailable while the file is locked, full or failing, and ConfigError for a file that is no database. A
    broken constraint comes through as ``sqlite3.IntegrityError``: it is the caller's to explain.
    """

    def __init__(self, path: Path, schema: str = "") -> None:
        self._path = path
        self._schema = schema
        self._turn = asyncio.Lock()
        self._connection: sqlite3.Connection | None = None

    async def __aenter__(self) -> Self:
        try:
            await self._finish(self._open)
        except asyncio.CancelledError:
            self._close()
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        async with self._turn:
            await self._finish(self._close)

    async def read(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """The query's answer from one consistent state of the file."""
        return await self._in_turn("BEGIN", query)

    async def write(self, change: Callable[[sqlite3.Connection], T]) -> T:
        """Make the change as one durable transaction; whatever it raises undoes all of it."""
        return await self._in_turn("BEGIN IMMEDIATE", change)

    async def _in_turn(self, begin: str, work: Callable[[sqlite3.Connection], T]) -> T:
        async with self._turn:
            return await self._finish(lambda: self._transact(begin, work))

    async def _finish(self, call: Callable[[], T]) -> T:
        try:
            return await finish(call)
        except sqlite3.OperationalError as error:
            raise Unavailable(f"{self._path.name}: {error}") from error
        except sqlite3.DatabaseError as error:
            if type(error) is not sqlite3.DatabaseError:
                raise
            message = f"not a usable database: {error}"
            raise ConfigError.at(str(self._path), message, "move the file aside and start again") from error

    def _open(self) -> None:
        files.make_folder(self._path.parent)
        connection = sqlite3.connect(self._path, timeout=PATIENCE_S, isolation_level=None, check_same_thread=False)
        try:
            connection.executescript(PRAGMAS + self._schema)
        except sqlite3.Error:
            connection.close()
            raise
        self._connection = connection

    def _close(self) -> None:
        if self._connection is not None:
            with closing(self._connection):
                self._connection = None

    def _transact(self, begin: str, work: Callable[[sqlite3.Connection], T]) -> T:
        if self._connection is None:
            raise Unavailable(f"{self._path.name} is closed")
        with self._connection as connection:
            connection.execute(begin)
            return work(connection)
