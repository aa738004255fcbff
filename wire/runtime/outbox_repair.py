"""What an outbox does when the plan fails: too little room, a next hop that lost its memory, a file from the past.

Each function is one transaction on an open file.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple, cast

from wire.codec import encode_record
from wire.delivery import CLOSED_SEQ, StreamKey
from wire.messages import GapBody, Predecessor, ReadingsBody, Record, SchemaBody, Stream
from wire.runtime.outbox_file import FRONT, INSERT, Lane, OutboxFile, decoded, renumbered
from wire.runtime.outbox_types import GAP, READINGS, SCHEMA, Totals

CHUNK = 64


class _Run(NamedTuple):
    """Neighbouring records of one stream that are dropped together."""

    lane: int
    epoch: int
    seq: int
    last_seq: int
    id: int


def drop(file: OutboxFile, wanted: int, above: int, now: int) -> int:
    """Make room for ``wanted`` bytes: first what is acked and only kept, then the oldest readings behind row ``above``
    (those before it may be on their way), then any readings. Each run of dropped records becomes a gap record in its
    place. Returns the readings dropped.
    """
    goal = file.used() - wanted
    dropped = file.totals.dropped_readings
    while file.used() > goal:
        with file.transaction():
            victims = _acked(file)
            if victims:
                file.db.executemany("DELETE FROM record WHERE id = ?", victims)
                continue
            victims = _oldest(file, above) or _oldest(file, FRONT)
            if not victims:
                break
            totals = _drop_chunk(file, [id_ for (id_,) in victims], above, now)
        file.settle(file.lanes, totals, file.newest)
    return file.totals.dropped_readings - dropped


def rewind(file: OutboxFile, key: StreamKey, epoch: int, seq: int, now: int) -> bool:
    """The next hop has only what comes before ``seq`` + 1 of an epoch: send again what is still here, and a gap record
    for the rest. Returns whether anything changed.
    """
    lane = file.lanes.get(key)
    if lane is None:
        return False
    place = (lane.id, epoch, seq)
    with file.transaction():
        where = "lane = ? AND epoch = ? AND last_seq > ? AND acked IS NOT NULL"
        count, readings = file.db.execute(
            f"SELECT count(*), coalesce(sum(readings), 0) FROM record WHERE {where}",  # noqa: S608
            place,
        ).fetchone()
        file.db.execute(f"UPDATE record SET acked = NULL WHERE {where}", place)  # noqa: S608
        first = file.db.execute(
            "SELECT min(seq) FROM record WHERE lane = ? AND epoch = ? AND last_seq > ?", place
        ).fetchone()[0]
        end = _end(file, key, lane, epoch) if first is None else first - 1
        missing = end > seq
        if not missing and not count:
            return False
        if missing:
            body = GapBody(last_seq=end, count=0, start=0, end=0, reason="rollback")
            row = file.db.execute("SELECT coalesce(min(id), 1) - 1 FROM record").fetchone()[0]
            _insert(file, row, lane.id, _record(key, epoch, seq + 1, body), now)
        totals = replace(
            file.totals,
            acked_readings=file.totals.acked_readings - readings,
            pending_records=file.totals.pending_records + count + missing,
        )
        file.save(file.lanes, totals)
    file.settle(file.lanes, totals, file.newest)
    return True


def reopen(file: OutboxFile, key: StreamKey, acked_seq: int, new_epoch: int, now: int) -> None:
    """The next hop knows a future of this epoch that this file does not: the file was restored from an old image.

    A new epoch begins. What was here before the image was taken and the next hop has is released; all that may have
    come since is renumbered behind a schema record that names where the old epoch stood.
    """
    assert file.source is not None
    old = file.epoch
    with file.transaction():
        totals, lanes = file.totals, {each: replace(lane) for each, lane in file.lanes.items()}
        if acked_seq < CLOSED_SEQ:
            known = lanes[key].unproven or 0
            totals = file.release(totals, lanes[key].id, old, min(acked_seq, known - 1), None)
        for each, lane in lanes.items():
            if each.source == file.source:
                added = _renumber(file, each, lane, new_epoch, now)
                totals = replace(totals, pending_records=totals.pending_records + added)
        file.db.execute("UPDATE life SET epoch = ?", (new_epoch,))
        file.save(lanes, totals)
    file.epoch = new_epoch
    file.settle(lanes, totals, file.newest)


def _renumber(file: OutboxFile, key: StreamKey, lane: Lane, new_epoch: int, now: int) -> int:
    """Move a lane's pending records to a new epoch; returns how many records that adds (its schema record: 0 or 1)."""
    rows = file.db.execute("SELECT id, seq, kind FROM record WHERE lane = ? AND acked IS NULL ORDER BY id", (lane.id,))
    pending = rows.fetchall()
    floor = pending[0][1] if pending else lane.next_seq
    end = Predecessor(epoch=file.epoch, last_seq=floor - 1)
    schema = file.schema(key) or file.schema(StreamKey(key.source, "telemetry"))
    lane.next_seq, lane.unproven = 0, None
    added = 0
    if schema is None:
        # the application has not declared its points yet: its first record will name the predecessor
        file.db.execute("UPDATE lane SET epoch = ?, position = ? WHERE id = ?", (end.epoch, end.last_seq, lane.id))
    else:
        body = cast("SchemaBody", decoded(schema).body).model_copy(update={"predecessor": end})
        first = file.db.execute("SELECT coalesce(min(id), 1) - 1 FROM record").fetchone()[0]
        record = _record(key, new_epoch, 0, body)
        _insert(file, first, lane.id, record, now)
        file.keep_schema(lane.id, body.schema_hash, encode_record(record))
        lane.next_seq = added = 1
    for id_, seq, kind in pending:
        raw = file.db.execute("SELECT raw FROM record WHERE id = ?", (id_,)).fetchone()[0]
        length = 1
        if kind == GAP:
            gap = decoded(raw)
            length = gap.last_seq - seq + 1
            moved = gap.body.model_copy(update={"last_seq": lane.next_seq + length - 1})
            raw = encode_record(gap.model_copy(update={"body": moved}))
        file.db.execute(
            "UPDATE record SET epoch = ?, seq = ?, last_seq = ?, raw = ? WHERE id = ?",
            (new_epoch, lane.next_seq, lane.next_seq + length - 1, renumbered(raw, new_epoch, lane.next_seq), id_),
        )
        lane.next_seq += length
    return added


def _end(file: OutboxFile, key: StreamKey, lane: Lane, epoch: int) -> int:
    """Last seq that an epoch ever had here, -1 if this file does not know it."""
    if key.source == file.source and epoch == file.epoch:
        return lane.next_seq - 1
    at = file.positions.get(key)
    if at is not None and at.epoch == epoch:
        return at.next_seq - 1
    for (raw,) in file.db.execute("SELECT raw FROM schema WHERE lane = ?", (lane.id,)):
        body = decoded(raw).body
        if isinstance(body, SchemaBody) and body.predecessor is not None and body.predecessor.epoch == epoch:
            return body.predecessor.last_seq
    return -1


def _acked(file: OutboxFile) -> list[tuple[int]]:
    return file.db.execute("SELECT id FROM record WHERE acked IS NOT NULL ORDER BY acked LIMIT ?", (CHUNK,)).fetchall()


def _oldest(file: OutboxFile, above: int) -> list[tuple[int]]:
    return file.db.execute(
        "SELECT id FROM record WHERE id > ? AND kind = ? AND acked IS NULL ORDER BY id LIMIT ?",
        (above, READINGS, CHUNK),
    ).fetchall()


def _drop_chunk(file: OutboxFile, ids: list[int], above: int, now: int) -> Totals:
    """Replace these records by gap records, in the running transaction; a gap that was not sent yet is made longer."""
    names = {lane.id: key for key, lane in file.lanes.items()}
    records = [_stored(file, id_) for id_ in ids]
    readings = sum(len(body.point) for _, body in records)
    file.db.executemany("DELETE FROM record WHERE id = ?", [(id_,) for id_ in ids])
    added = 0
    for run, bodies in _runs(records):
        key = names[run.lane]
        gap = _gap(bodies, run.last_seq)
        before = file.db.execute(
            "SELECT id, seq, raw FROM record WHERE lane = ? AND epoch = ? AND last_seq = ? AND kind = ? AND id > ?",
            (run.lane, run.epoch, run.seq - 1, GAP, above),
        ).fetchone()
        if before is None:
            _insert(file, run.id, run.lane, _record(key, run.epoch, run.seq, gap), now)
            added += 1
        else:
            joined = _joined(cast("GapBody", decoded(before[2]).body), gap)
            raw = encode_record(_record(key, run.epoch, before[1], joined))
            file.db.execute("UPDATE record SET last_seq = ?, raw = ? WHERE id = ?", (joined.last_seq, raw, before[0]))
    totals = replace(
        file.totals,
        dropped_readings=file.totals.dropped_readings + readings,
        pending_records=file.totals.pending_records - len(ids) + added,
    )
    file.save(file.lanes, totals)
    return totals


def _stored(file: OutboxFile, id_: int) -> tuple[_Run, ReadingsBody]:
    lane, raw = file.db.execute("SELECT lane, raw FROM record WHERE id = ?", (id_,)).fetchone()
    record = decoded(raw)
    return _Run(lane, record.epoch, record.seq, record.last_seq, id_), cast("ReadingsBody", record.body)


def _runs(records: list[tuple[_Run, ReadingsBody]]) -> Iterator[tuple[_Run, list[ReadingsBody]]]:
    """Join neighbours: same stream and epoch, consecutive seqs."""
    runs: dict[tuple[int, int], tuple[_Run, list[ReadingsBody]]] = {}
    for place, body in records:
        run = runs.get(place[:2])
        if run is not None and run[0].last_seq + 1 == place.seq:
            run[1].append(body)
            runs[place[:2]] = run[0]._replace(last_seq=place.last_seq), run[1]
            continue
        if run is not None:
            yield run
        runs[place[:2]] = place, [body]
    yield from runs.values()


def _gap(bodies: list[ReadingsBody], last_seq: int) -> GapBody:
    """What the records held, in a few figures."""
    rows = [body for body in bodies if body.dt]
    return GapBody(
        last_seq=last_seq,
        count=sum(len(body.point) for body in bodies),
        start=min((body.base + min(body.dt) for body in rows), default=0),
        end=max((body.base + max(body.dt) for body in rows), default=0),
        points=sorted({point for body in rows for point in body.point}),
        reason="quota",
    )


def _joined(first: GapBody, second: GapBody) -> GapBody:
    return GapBody(
        last_seq=second.last_seq,
        count=first.count + second.count,
        start=min(first.start, second.start),
        end=max(first.end, second.end),
        points=sorted({*first.points, *second.points}),
        reason="quota",
    )


def _record(key: StreamKey, epoch: int, seq: int, body: GapBody | SchemaBody) -> Record:
    return Record(source=key.source, stream=cast("Stream", key.stream), epoch=epoch, seq=seq, body=body)


def _insert(file: OutboxFile, row: int, lane: int, record: Record, now: int) -> None:
    kind = GAP if isinstance(record.body, GapBody) else SCHEMA
    file.db.execute(INSERT, (row, lane, record.epoch, record.seq, record.last_seq, kind, 0, now, encode_record(record)))
