"""The file behind an outbox: SQLite in WAL mode with ``synchronous=FULL``, so that a commit survives a power cut.

Everything here blocks and runs in a thread. One connection writes, one call at a time; a second one reads ahead for
the sender. What others see (totals, positions, the next seq) changes only after its transaction is durable.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import IO, Self, cast

from wire import codec
from wire.delivery import Position, StreamKey
from wire.errors import ConfigError, TwinlineError, Unavailable
from wire.messages import Predecessor, Record, SchemaBody, Stream
from wire.runtime.outbox_place import FORMAT, PAGE, connect, locked, set_aside, sound
from wire.runtime.outbox_types import Damaged, Entry, Pending, Relayed, Totals, Work

FRONT = -(1 << 62)
"""Below every row id."""
KEPT_SCHEMAS = 8

DDL = """
CREATE TABLE life (format INTEGER NOT NULL, epoch INTEGER NOT NULL, clean INTEGER NOT NULL);
CREATE TABLE total (committed_records INTEGER, committed_readings INTEGER, acked_readings INTEGER,
    dropped_readings INTEGER, pending_records INTEGER);
CREATE TABLE lane (id INTEGER PRIMARY KEY, source TEXT NOT NULL, stream TEXT NOT NULL, next_seq INTEGER NOT NULL,
    unproven INTEGER, epoch INTEGER, position INTEGER, closed TEXT, UNIQUE (source, stream));
CREATE TABLE record (id INTEGER PRIMARY KEY, lane INTEGER NOT NULL, epoch INTEGER NOT NULL, seq INTEGER NOT NULL,
    last_seq INTEGER NOT NULL, kind INTEGER NOT NULL, readings INTEGER NOT NULL, stamp INTEGER NOT NULL,
    acked INTEGER, raw BLOB NOT NULL);
CREATE UNIQUE INDEX record_place ON record (lane, epoch, seq);
CREATE INDEX record_acked ON record (acked) WHERE acked IS NOT NULL;
CREATE TABLE schema (lane INTEGER NOT NULL, hash TEXT NOT NULL, raw BLOB NOT NULL, PRIMARY KEY (lane, hash));
INSERT INTO total VALUES (0, 0, 0, 0, 0);
"""
SELECT = "SELECT id, lane, epoch, seq, last_seq, readings, stamp, raw FROM record"
INSERT = (
    "INSERT INTO record (id, lane, epoch, seq, last_seq, kind, readings, stamp, raw) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


@dataclass(slots=True)
class Lane:
    """One stream in the file. ``unproven``: first seq of this file that the next hop may know from another life of it,
    as it does when the file was restored from an old image; None once the next hop has answered."""

    id: int
    next_seq: int = 0
    unproven: int | None = None


class OutboxFile:
    """An open file. ``epoch`` numbers the life of an edge's outbox; a gateway's (``source`` None) has none."""

    def __init__(
        self, path: Path, lock: IO[bytes], db: sqlite3.Connection, reader: sqlite3.Connection, source: str | None
    ) -> None:
        self.path = path
        self.db = db
        self.source = source
        self.epoch = 0
        self.lanes: dict[StreamKey, Lane] = {}
        self.positions: dict[StreamKey, Position] = {}
        self.totals = Totals()
        self.newest = 0
        self.replaced = False
        self._reader = reader
        self._lock = lock

    @classmethod
    def open(cls, path: Path, source: str | None, new_epoch: int, wal_bytes: int) -> Self:
        """Open or create; a damaged file is set aside first. Raises ConfigError if the place can never work."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = locked(path)
            if damaged := path.exists() and not sound(path):
                set_aside(path, new_epoch)
            db, reader = connect(path), connect(path)
        except (OSError, sqlite3.Error) as error:
            raise ConfigError.at(str(path), f"the outbox cannot be opened: {error}") from None
        db.execute(f"PRAGMA wal_autocheckpoint = {max(16, wal_bytes // 2 // PAGE)}")
        db.execute(f"PRAGMA journal_size_limit = {wal_bytes // 2}")
        file = cls(path, lock, db, reader, source)
        file.replaced = damaged
        file._begin(new_epoch)
        return file

    def close(self, clean: bool) -> None:
        """Mark the file clean, so that the next start need not read it through, and fold its journal in."""
        with self._lock, closing(self.db):
            self._reader.close()
            if clean:
                with suppress(Unavailable), self.transaction():
                    self.db.execute("UPDATE life SET clean = 1")

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing, durable at the end. Raises Unavailable when the disk is full, Damaged for worse."""
        try:
            self.db.execute("BEGIN IMMEDIATE")
            yield
            self.db.execute("COMMIT")
        except sqlite3.Error as error:
            raise _translated(error) from error
        finally:
            if self.db.in_transaction:
                with suppress(sqlite3.Error):
                    self.db.execute("ROLLBACK")

    def used(self) -> int:
        """Bytes of the pages in use."""
        pages, free = (self.db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count"))
        return cast("int", pages - free) * PAGE

    def commit(self, work: Work, now: int, grace_ns: int) -> list[Pending]:
        """One transaction; returns what it stored: ``work.relayed``, then ``work.entries`` with their seqs. What was
        acked longer than ``grace_ns`` ago goes."""
        lanes = {key: replace(lane) for key, lane in self.lanes.items()}
        with self.transaction():
            records = [*work.relayed, *self._number(lanes, work.entries)]
            stored = self._store(lanes, records, now)
            for each in work.learned:
                if each.schema_hash is not None:
                    self.keep_schema(self.lane(lanes, each.key).id, each.schema_hash, each.raw)
            totals = self.totals
            for (key, epoch), seq in work.released.items():
                if key in lanes:
                    totals = self.release(totals, lanes[key].id, epoch, seq, now if grace_ns else None)
            if grace_ns:
                self.db.execute("DELETE FROM record WHERE acked < ?", (now - grace_ns,))
            for key in work.proven & lanes.keys():
                lanes[key].unproven = None
            self._place(lanes, work.positions)
            totals = replace(
                totals,
                committed_records=totals.committed_records + len(stored),
                committed_readings=totals.committed_readings + sum(each.readings for each in stored),
                pending_records=totals.pending_records + len(stored),
            )
            self.save(lanes, totals)
        self.settle(lanes, totals, self.newest + len(stored))
        self.positions.update(work.positions)
        return stored

    def pending(self, stream: str, after: int, max_readings: int, max_bytes: int) -> tuple[list[Pending], int]:
        """Records behind row ``after`` in order, and the row up to which there is nothing else to send."""
        # the newest row first, and nothing behind it: a commit may bring new rows, of new lanes too, at any moment
        newest, out, readings, size = self.newest, list[Pending](), 0, 0
        keys = {lane.id: key for key, lane in self.lanes.items() if key.stream == stream}
        lanes = ",".join(map(str, keys))
        query = f"{SELECT} WHERE id > ? AND id <= ? AND acked IS NULL AND lane IN ({lanes}) ORDER BY id"
        with closing(self._reader.execute(query, (after, newest))) as rows:
            for id_, lane, epoch, seq, last_seq, count, stamp, raw in rows:
                out.append(Pending(id_, keys[lane], epoch, seq, last_seq, count, stamp, raw))
                readings += count
                size += len(raw)
                if readings >= max_readings or size >= max_bytes:
                    return out, id_
        return out, max(newest, out[-1].id if out else after)

    def schema(self, key: StreamKey, schema_hash: str | None = None) -> bytes | None:
        """The stored schema record of that hash, or the newest."""
        if key not in self.lanes:
            return None
        wanted = "hash = ?" if schema_hash else "? IS NULL"
        query = f"SELECT raw FROM schema WHERE lane = ? AND {wanted} ORDER BY rowid DESC"  # noqa: S608
        row = self._reader.execute(query, (self.lanes[key].id, schema_hash)).fetchone()
        return None if row is None else cast("bytes", row[0])

    def lane(self, lanes: dict[StreamKey, Lane], key: StreamKey) -> Lane:
        """The stream's lane, made in the running transaction if it is new."""
        lane = lanes.get(key)
        if lane is None:
            cursor = self.db.execute("INSERT INTO lane (source, stream, next_seq) VALUES (?, ?, 0)", key)
            lane = lanes[key] = Lane(cast("int", cursor.lastrowid))
        return lane

    def release(self, totals: Totals, lane: int, epoch: int, seq: int, acked: int | None) -> Totals:
        """Forget what the next hop has, or mark it with the time and keep it for the grace period."""
        where = "lane = ? AND epoch = ? AND last_seq <= ? AND acked IS NULL"
        place = (lane, epoch, seq)
        count, readings = self.db.execute(
            f"SELECT count(*), coalesce(sum(readings), 0) FROM record WHERE {where}",  # noqa: S608
            place,
        ).fetchone()
        if acked is None:
            self.db.execute(f"DELETE FROM record WHERE {where}", place)  # noqa: S608
        else:
            self.db.execute(f"UPDATE record SET acked = ? WHERE {where}", (acked, *place))  # noqa: S608
        return replace(
            totals,
            acked_readings=totals.acked_readings + readings,
            pending_records=totals.pending_records - count,
        )

    def keep_schema(self, lane: int, schema_hash: str, raw: bytes) -> None:
        """Remember a schema record for a receiver that asks, the newest few of each stream."""
        self.db.execute("INSERT OR REPLACE INTO schema (lane, hash, raw) VALUES (?, ?, ?)", (lane, schema_hash, raw))
        self.db.execute(
            "DELETE FROM schema WHERE lane = ? AND rowid NOT IN"
            " (SELECT rowid FROM schema WHERE lane = ? ORDER BY rowid DESC LIMIT ?)",
            (lane, lane, KEPT_SCHEMAS),
        )

    def save(self, lanes: dict[StreamKey, Lane], totals: Totals) -> None:
        """Write the counters, in the running transaction."""
        changed = [
            (lane.next_seq, lane.unproven, lane.id) for key, lane in lanes.items() if lane != self.lanes.get(key)
        ]
        self.db.executemany("UPDATE lane SET next_seq = ?, unproven = ? WHERE id = ?", changed)
        self.db.execute(
            "UPDATE total SET committed_records = ?, committed_readings = ?, acked_readings = ?, dropped_readings = ?,"
            " pending_records = ?",
            astuple(totals)[:5],
        )

    def settle(self, lanes: dict[StreamKey, Lane], totals: Totals, newest: int) -> None:
        """The transaction is durable: let its figures be seen."""
        self.lanes, self.totals, self.newest = lanes, replace(totals, bytes=self.used()), newest

    def _number(self, lanes: dict[StreamKey, Lane], entries: list[Entry]) -> Iterator[Relayed]:
        """Own records with their seqs, encoded."""
        for stream, body, readings in entries:
            assert self.source is not None, "an outbox without a source only relays"
            lane = self.lane(lanes, StreamKey(self.source, stream))
            if isinstance(body, SchemaBody) and body.predecessor is None and lane.next_seq == 0:
                body = body.model_copy(update={"predecessor": self._predecessor(lane)})
            record = Record(
                source=self.source, stream=cast("Stream", stream), epoch=self.epoch, seq=lane.next_seq, body=body
            )
            lane.next_seq += 1
            relayed = Relayed.of(record)
            yield relayed._replace(readings=readings or relayed.readings)

    def _predecessor(self, lane: Lane) -> Predecessor | None:
        """Noted when a new epoch was opened in this file."""
        row = self.db.execute("SELECT epoch, position FROM lane WHERE id = ?", (lane.id,)).fetchone()
        return None if row[0] is None else Predecessor(epoch=row[0], last_seq=row[1])

    def _store(self, lanes: dict[StreamKey, Lane], records: list[Relayed], now: int) -> list[Pending]:
        """Insert the records behind the newest row, and remember the schemas among them."""
        stored, rows = [], []
        for id_, each in enumerate(records, self.newest + 1):
            key, epoch, seq, last_seq, raw, readings, schema_hash, _ = each
            lane = self.lane(lanes, key)
            stored.append(Pending(id_, key, epoch, seq, last_seq, readings, now, raw))
            rows.append((id_, lane.id, epoch, seq, last_seq, each.kind, readings, now, raw))
            if schema_hash is not None:
                self.keep_schema(lane.id, schema_hash, raw)
        self.db.executemany(INSERT, rows)
        return stored

    def _place(self, lanes: dict[StreamKey, Lane], positions: dict[StreamKey, Position]) -> None:
        for key, at in positions.items():
            if at != self.positions.get(key):
                self.db.execute(
                    "UPDATE lane SET epoch = ?, position = ?, closed = ? WHERE id = ?",
                    (at.epoch, at.next_seq, json.dumps(at.closed), self.lane(lanes, key).id),
                )

    def _begin(self, new_epoch: int) -> None:
        """Read where the last life of the process ended."""
        with self.transaction():
            if not self.db.execute("SELECT 1 FROM sqlite_master").fetchone():
                for statement in DDL.split(";\n"):
                    self.db.execute(statement)
                self.db.execute("INSERT INTO life VALUES (?, ?, 0)", (FORMAT, new_epoch))
            self.epoch = self.db.execute("SELECT epoch FROM life").fetchone()[0]
            self.db.execute("UPDATE life SET clean = 0")
            lanes = self.db.execute("SELECT id, source, stream, next_seq, unproven, epoch, position, closed FROM lane")
            for id_, source, stream, next_seq, unproven, epoch, position, closed in lanes.fetchall():
                key = StreamKey(source, stream)
                own = source == self.source
                self.lanes[key] = Lane(id_, next_seq, (next_seq or None) if own and unproven is None else unproven)
                if not own and epoch is not None:
                    self.positions[key] = Position(epoch, position, tuple(json.loads(closed)))
            self.db.executemany(
                "UPDATE lane SET unproven = ? WHERE id = ?", [(lane.unproven, lane.id) for lane in self.lanes.values()]
            )
            row = self.db.execute("SELECT * FROM total").fetchone()
            newest = self.db.execute("SELECT coalesce(max(id), 0) FROM record").fetchone()[0]
        self.settle(self.lanes, Totals(*row), newest)


def inspect(path: Path) -> Totals:
    """The totals of a file, whether a process has it open or not. Raises Unavailable if there is no such file."""
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5.0)) as db:
            row = db.execute("SELECT * FROM total").fetchone()
            pages, free = (db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count"))
    except sqlite3.Error as error:
        raise Unavailable(f"{path}: {error}") from error
    return replace(Totals(*row), bytes=(pages - free) * PAGE)


def _translated(error: sqlite3.Error) -> TwinlineError:
    if getattr(error, "sqlite_errorname", "") in ("SQLITE_FULL", "SQLITE_BUSY", "SQLITE_LOCKED"):
        return Unavailable(f"outbox: {error}")
    # after a failed write or fsync the pages in memory prove nothing: only a new start may judge the file
    return Damaged(f"outbox: {error}")


def renumbered(raw: bytes, epoch: int, seq: int) -> bytes:
    """An encoded record under another epoch and seq; its body stays as it is."""
    head, body = raw.index(b',"epoch":'), raw.index(b',"body":')
    return raw[:head] + b',"epoch":%d,"seq":%d' % (epoch, seq) + raw[body:]


def decoded(raw: bytes) -> Record:
    """A stored record, to look into its body."""
    return codec.decode(Record, raw)
