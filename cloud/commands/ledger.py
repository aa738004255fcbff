"""The ledger: an append-only, hash-chained book of every command and what became of it.

One line for each step; a line's hash covers the line and the hash before it, so a changed byte is found by
``verify`` (a cut-off tail is not: keep the last hash elsewhere for that). The file itself refuses updates, deletes
and a second final state.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Self

from cloud.commands.model import Command, Entry, Step
from cloud.sqlite import Database
from wire.errors import BadData, Rejected
from wire.messages import State
from wire.points import PointId

SCHEMA = """
CREATE TABLE IF NOT EXISTS commands (
  cmd_id TEXT PRIMARY KEY, key TEXT UNIQUE, digest TEXT NOT NULL, point TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS steps (
  n INTEGER PRIMARY KEY, cmd_id TEXT NOT NULL, what TEXT NOT NULL, reason TEXT NOT NULL, at INTEGER NOT NULL,
  detail TEXT NOT NULL, final INTEGER NOT NULL, hash TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS steps_of ON steps (cmd_id, n);
CREATE UNIQUE INDEX IF NOT EXISTS one_final_state ON steps (cmd_id) WHERE final;
CREATE TABLE IF NOT EXISTS revisions (point TEXT PRIMARY KEY, revision INTEGER NOT NULL) WITHOUT ROWID;
CREATE TRIGGER IF NOT EXISTS steps_stay BEFORE UPDATE ON steps BEGIN SELECT RAISE(ABORT, 'append-only'); END;
CREATE TRIGGER IF NOT EXISTS steps_remain BEFORE DELETE ON steps BEGIN SELECT RAISE(ABORT, 'append-only'); END;
"""

OPEN = """
SELECT cmd_id FROM commands c WHERE NOT EXISTS (SELECT 1 FROM steps s WHERE s.cmd_id = c.cmd_id AND s.final)
UNION
SELECT cmd_id FROM steps v WHERE v.what = 'verified'
  AND NOT EXISTS (SELECT 1 FROM steps r WHERE r.cmd_id = v.cmd_id AND r.what = 'released')
"""
"""Commands that somebody still has to attend to: unfinished, or verified and holding a lease."""


class Ledger:
    """Enter, use, leave. Every verb is one durable transaction; Unavailable while the file cannot be written."""

    def __init__(self, path: Path) -> None:
        self._database = Database(path, SCHEMA)

    async def __aenter__(self) -> Self:
        await self._database.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._database.__aexit__(*exc)

    async def enter(self, command: Command, digest: str, *steps: Step) -> tuple[Entry, bool]:
        """Write a new command with its first steps; returns its entry and whether it is new.

        A known key with the same digest gives back the entry it named first; with another digest Rejected("conflict").
        """

        def work(connection: sqlite3.Connection) -> tuple[Entry, bool]:
            known = _by_key(connection, command.key)
            if known is not None:
                cmd_id, its_digest = known
                if its_digest != digest:
                    raise Rejected("conflict", f"key {command.key!r} was used for another order")
                return _entry(connection, cmd_id), False
            connection.execute(
                "INSERT INTO commands VALUES (?, ?, ?, ?)", (command.cmd_id, command.key, digest, str(command.point))
            )
            first = Step(State.REQUESTED, "", command.requested, {"command": _to_json(command)})
            for step in (first, *steps):
                _append(connection, command.cmd_id, step)
            return _entry(connection, command.cmd_id), True

        return await self._database.write(work)

    async def find(self, key: str, digest: str) -> Entry | None:
        """The command that this key names already; Rejected("conflict") if it was another order."""

        def work(connection: sqlite3.Connection) -> Entry | None:
            known = _by_key(connection, key)
            if known is None:
                return None
            if known[1] != digest:
                raise Rejected("conflict", f"key {key!r} was used for another order")
            return _entry(connection, known[0])

        return await self._database.read(work)

    async def add(self, cmd_id: str, *steps: Step) -> Entry:
        """Append steps. A second final state becomes a ``note`` that says what it would have been."""

        def work(connection: sqlite3.Connection) -> Entry:
            ended = _entry(connection, cmd_id).state.final
            for step in steps:
                if ended and step.what in _STATES:
                    step = Step("note", f"after the end: {step.what} {step.reason}".strip(), step.at, step.detail)
                ended = ended or step.what in _FINAL
                _append(connection, cmd_id, step)
            return _entry(connection, cmd_id)

        return await self._database.write(work)

    async def entry(self, cmd_id: str) -> Entry:
        """One command with its story (of its renewals only the newest); Rejected("unknown-setpoint")."""
        return await self._database.read(lambda connection: _entry(connection, cmd_id))

    async def open_entries(self) -> list[Entry]:
        """Every command that is unfinished or standing, oldest first: what a new process takes up."""

        def work(connection: sqlite3.Connection) -> list[Entry]:
            found = [_entry(connection, cmd_id) for (cmd_id,) in connection.execute(OPEN).fetchall()]
            return sorted(found, key=lambda entry: entry.command.requested)

        return await self._database.read(work)

    async def newest(self) -> Entry | None:
        """The command that was requested last."""

        def work(connection: sqlite3.Connection) -> Entry | None:
            query = "SELECT cmd_id FROM steps WHERE what = 'requested' ORDER BY n DESC LIMIT 1"
            row = connection.execute(query).fetchone()
            return _entry(connection, row[0]) if row else None

        return await self._database.read(work)

    async def reserve(self, point: PointId, above: int) -> int:
        """The next revision of a point: above every one reserved before and above the given one."""

        def work(connection: sqlite3.Connection) -> int:
            row = connection.execute(
                "INSERT INTO revisions VALUES (?1, ?2 + 1) "
                "ON CONFLICT (point) DO UPDATE SET revision = max(revision, ?2) + 1 RETURNING revision",
                (str(point), above),
            ).fetchone()
            return int(row[0])

        return await self._database.write(work)

    async def counts(self) -> Mapping[str, int]:
        """Commands by final state."""
        query = "SELECT what, count(*) FROM steps WHERE final GROUP BY what ORDER BY what"
        return await self._database.read(lambda connection: dict(connection.execute(query).fetchall()))

    async def verify(self) -> int:
        """Recompute the chain; returns the number of lines, raises BadData("ledger") at the first that disagrees."""

        def work(connection: sqlite3.Connection) -> int:
            count, previous = 0, ""
            for n, cmd_id, what, reason, at, detail, final, digest in connection.execute("SELECT * FROM steps"):
                previous = _hash(previous, cmd_id, what, reason, at, detail)
                count += 1
                if digest != previous or n != count or bool(final) != (what in _FINAL):
                    raise BadData("ledger", f"line {n} is not as it was written")
            return count

        return await self._database.read(work)


_STATES = frozenset(state.value for state in State)
_FINAL = frozenset(state.value for state in State if state.final)


def _by_key(connection: sqlite3.Connection, key: str | None) -> tuple[str, str] | None:
    if key is None:
        return None
    row: tuple[str, str] | None
    row = connection.execute("SELECT cmd_id, digest FROM commands WHERE key = ?", (key,)).fetchone()
    return row


def _append(connection: sqlite3.Connection, cmd_id: str, step: Step) -> None:
    last = connection.execute("SELECT n, hash FROM steps ORDER BY n DESC LIMIT 1").fetchone()
    n, previous = last if last else (0, "")
    what, detail = str(step.what), json.dumps(step.detail, separators=(",", ":"), sort_keys=True, allow_nan=False)
    digest = _hash(previous, cmd_id, what, step.reason, step.at, detail)
    row = (n + 1, cmd_id, what, step.reason, step.at, detail, what in _FINAL, digest)
    connection.execute("INSERT INTO steps VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)


def _hash(previous: str, cmd_id: str, what: str, reason: str, at: int, detail: str) -> str:
    line = json.dumps([previous, cmd_id, what, reason, at, detail], separators=(",", ":"))
    return sha256(line.encode()).hexdigest()


def _entry(connection: sqlite3.Connection, cmd_id: str) -> Entry:
    rows: Sequence[tuple[str, str, int, str]] = connection.execute(
        "SELECT what, reason, at, detail FROM steps WHERE cmd_id = ?1 AND (what != 'renewed' OR n = "
        "(SELECT max(n) FROM steps WHERE cmd_id = ?1 AND what = 'renewed')) ORDER BY n",
        (cmd_id,),
    ).fetchall()
    if not rows:
        raise Rejected("unknown-setpoint", f"no setpoint {cmd_id!r}")
    command = _from_json(json.loads(rows[0][3])["command"])
    first = Step(rows[0][0], rows[0][1], rows[0][2])
    rest = (Step(what, reason, at, json.loads(detail)) for what, reason, at, detail in rows[1:])
    return Entry(command, (first, *rest))


def _to_json(command: Command) -> dict[str, object]:
    return {**asdict(command), "point": str(command.point)}


def _from_json(fields: dict[str, object]) -> Command:
    return Command(**{**fields, "point": PointId.parse(str(fields["point"]))})  # type: ignore[arg-type]
