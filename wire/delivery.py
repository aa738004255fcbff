"""The delivery protocol without I/O: who holds what, in which order, and who must hear about it.

A *stream* (source, stream name) is a row of *epochs*, the lives of the outbox that numbers it; within an epoch records
count from 0. The pipe between sender and receiver may lose, repeat and reorder anything. The receiver lets records out
once and in order; the sender repeats what nobody has acknowledged. Both hops, edge -> gateway and gateway -> cloud,
use these two classes.

An epoch ends when the next one begins: its first record names its predecessor and the predecessor's last record. If
the receiver has all of that it moves on; if some is missing it waits, and its acks make the sender send it or a gap
record in its place. A sender that does not know its predecessor holds nothing of it, so a gap record is written here,
and from this hop on the predecessor is known.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, cast

from wire.codec import encode_record
from wire.messages import AckItem, GapBody, Predecessor, ReadingsBody, Record, SchemaBody, Stream

CLOSED_SEQ = 1 << 62
"""Acknowledged in place of a seq for an epoch that is over, whatever its length was."""
REMEMBERED_EPOCHS = 64


class StreamKey(NamedTuple):
    """Whose stream, and which: ``("site/edge", "telemetry")``."""

    source: str
    stream: str


class Position(NamedTuple):
    """How far a receiver has come: everything before ``next_seq`` of ``epoch`` is taken, ``closed`` epochs are over."""

    epoch: int
    next_seq: int
    closed: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Received:
    """One record in its place in the stream; ``seq`` -1 is a repeated schema, to be learned and not passed on."""

    record: Record
    encoded: bytes | None = None

    @property
    def raw(self) -> bytes:
        """The record as bytes, to be stored or forwarded."""
        return encode_record(self.record) if self.encoded is None else self.encoded

    @property
    def key(self) -> StreamKey:
        return StreamKey(self.record.source, self.record.stream)

    @property
    def readings(self) -> int:
        """Rows held; 0 for everything but readings records."""
        body = self.record.body
        return len(body.point) if isinstance(body, ReadingsBody) else 0


@dataclass(slots=True)
class Tally:
    """What became of the offered records; ``repeats`` and ``overflow`` were not kept."""

    offered: int = 0
    repeats: int = 0
    overflow: int = 0
    gaps: int = 0
    """Gap records that had to be written here because a predecessor was unknown."""


@dataclass(slots=True)
class _Lane:
    """One stream on its way through the receiver: offered -> ready -> taken -> committed."""

    schemas: set[str]
    committed: Position | None = None
    taken: Position | None = None
    ready: Position | None = None
    held: dict[tuple[int, int], Received] = field(default_factory=dict)
    """Early records by (epoch, seq)."""
    openers: dict[int, None] = field(default_factory=dict)
    """Epochs whose first record is held."""
    due: dict[int, None] = field(default_factory=dict)
    """Epochs whose position the sender must hear now."""
    wanted: str | None = None


class Receiver:
    """Lets every record out exactly once, in order, whatever the pipe did.

    Call order: ``offer`` what arrived and send ``acks``; ``take`` what is in order, commit it with ``positions`` in one
    transaction, say ``committed``, send ``acks``. Only committed records are ever acknowledged, so a receiver rebuilt
    from the committed positions goes on where the transaction left off.

    At most ``window`` records of a stream are held early; more are dropped, and sent again by the sender.
    ``schemas`` are the hashes that the consumer knows, by stream: a readings record of any other schema holds its
    stream, and the acks ask for the schema.
    """

    def __init__(
        self,
        positions: Mapping[StreamKey, Position],
        window: int = 1024,
        *,
        schemas: Mapping[StreamKey, Iterable[str]] | None = None,
    ) -> None:
        self.tally = Tally()
        self.waiting_readings = 0
        """Readings that ``take`` would return."""
        self._window = window
        known = schemas or {}
        self._lanes = {key: _Lane(set(known.get(key, ())), at, at, at) for key, at in positions.items()}
        self._ready: deque[tuple[_Lane, Received, Position | None]] = deque()
        self._taken: dict[StreamKey, _Lane] = {}

    def __len__(self) -> int:
        """Records that ``take`` would return."""
        return len(self._ready)

    def offer(self, record: Record, raw: bytes | None = None) -> None:
        """Take in one record as it came from the pipe."""
        key = StreamKey(record.source, record.stream)
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = _Lane(set())
        self.tally.offered += 1
        at = lane.ready
        if record.seq < 0:
            self._learn(lane, Received(record, raw))
        elif at is not None and _is_over(at, record):
            self.tally.repeats += 1
            lane.due[record.epoch] = None
        else:
            self._hold(lane, Received(record, raw))

    def take(self, max_readings: int | None = None) -> list[Received]:
        """What is in order now, at most about ``max_readings`` of it; the caller commits it and says ``committed``."""
        out: list[Received] = []
        readings = 0
        while self._ready and (max_readings is None or readings < max_readings):
            lane, item, position = self._ready.popleft()
            out.append(item)
            readings += item.readings
            if position is not None:
                lane.taken = position
                self._taken[item.key] = lane
        self.waiting_readings -= readings
        return out

    def committed(self) -> None:
        """Everything taken so far is durable, together with ``positions``."""
        for lane in self._taken.values():
            assert lane.taken is not None
            before, lane.committed = lane.committed, lane.taken
            lane.due[lane.committed.epoch] = None
            if before is not None and before.epoch != lane.committed.epoch:
                lane.due[before.epoch] = None
        self._taken.clear()

    def positions(self) -> dict[StreamKey, Position]:
        """Where the streams will be when what was taken is committed."""
        return {key: lane.taken for key, lane in self._lanes.items() if lane.taken is not None}

    def remind(self, keys: Iterable[StreamKey]) -> None:
        """The senders of these streams must hear where they stand, although they have not asked."""
        for lane in map(self._lanes.get, keys):
            if lane is not None and lane.committed is not None:
                lane.due[lane.committed.epoch] = None

    def acks(self, term: int) -> list[AckItem]:
        """The answers that are due, and no others: progress after a commit, repeats and early records at once."""
        items = []
        for key, lane in self._lanes.items():
            items += [_ack(key, lane, epoch, term) for epoch in lane.due]
            lane.due.clear()
        return items

    def _learn(self, lane: _Lane, item: Received) -> None:
        """A repeated schema goes ahead of the records that wait for it."""
        record = item.record
        lane.due[record.epoch] = None
        if isinstance(record.body, SchemaBody) and record.body.schema_hash not in lane.schemas:
            self._let_out(lane, item, None)
            self._advance(lane)

    def _hold(self, lane: _Lane, item: Received) -> None:
        record, at = item.record, lane.ready
        if at is not None and record.epoch == at.epoch and record.seq < at.next_seq:
            # a gap that begins with records which did arrive: only its tail is missing here
            record = record.model_copy(update={"seq": at.next_seq})
            item = Received(record)
        place = (record.epoch, record.seq)
        if place in lane.held:
            self.tally.repeats += 1
        elif len(lane.held) < self._window or (at is not None and place == at[:2]):
            lane.held[place] = item
            if record.seq == 0:
                lane.openers[record.epoch] = None
            self._advance(lane)
        else:
            self.tally.overflow += 1
        if place in lane.held or lane.ready is at:
            lane.due[record.epoch] = None

    def _advance(self, lane: _Lane) -> None:
        """Let out whatever has become contiguous, across the borders of epochs."""
        while True:
            at = lane.ready
            item = None if at is None else lane.held.get(at[:2])
            if item is None:
                if not self._turn(lane):
                    return
                continue
            assert at is not None
            body = item.record.body
            if isinstance(body, ReadingsBody) and body.schema_hash not in lane.schemas:
                lane.wanted = body.schema_hash
                lane.due[at.epoch] = None
                return
            del lane.held[at[:2]]
            if isinstance(body, GapBody):
                _forget(lane, at.epoch, body.last_seq)
            self._let_out(lane, item, Position(at.epoch, item.record.last_seq + 1, at.closed))

    def _let_out(self, lane: _Lane, item: Received, position: Position | None) -> None:
        body = item.record.body
        if isinstance(body, SchemaBody):
            lane.schemas.add(body.schema_hash)
            if lane.wanted == body.schema_hash:
                lane.wanted = None
        if position is not None:
            lane.ready = position
        self.waiting_readings += item.readings
        self._ready.append((lane, item, position))

    def _turn(self, lane: _Lane) -> bool:
        """Enter the next epoch if its first record is here and nothing of the one before can still come."""
        at = lane.ready
        for epoch in lane.openers:
            item = lane.held[epoch, 0]
            before = item.record.body.predecessor if isinstance(item.record.body, SchemaBody) else None
            closed = () if at is None else at.closed
            if before is not None and before.epoch not in closed:
                if at is None or before.epoch != at.epoch or at.next_seq <= before.last_seq:
                    lane.due[before.epoch] = None
                    continue
            elif at is not None:
                self._write_gap(lane, item.record, at)
            self._enter(lane, item)
            return True
        return False

    def _write_gap(self, lane: _Lane, opener: Record, at: Position) -> None:
        """Close an epoch whose end nobody knows: its sender is gone or was rolled back."""
        known = isinstance(opener.body, SchemaBody) and opener.body.predecessor is not None
        body = GapBody(last_seq=at.next_seq, count=0, start=0, end=0, reason="rollback" if known else "unknown")
        record = opener.model_copy(update={"epoch": at.epoch, "seq": at.next_seq, "body": body})
        self.tally.gaps += 1
        self._let_out(lane, Received(record), Position(at.epoch, at.next_seq + 1, at.closed))

    def _enter(self, lane: _Lane, opener: Received) -> None:
        record, at = opener.record, lane.ready
        del lane.openers[record.epoch]
        if at is None:
            lane.ready = Position(record.epoch, 0)
            return
        _forget(lane, at.epoch, CLOSED_SEQ)
        lane.ready = Position(record.epoch, 0, (*at.closed, at.epoch)[-REMEMBERED_EPOCHS:])
        end = Predecessor(epoch=at.epoch, last_seq=at.next_seq - 1)
        if isinstance(record.body, SchemaBody) and record.body.predecessor != end:
            # the next hop has exactly what was let out here, whatever the source believed
            body = record.body.model_copy(update={"predecessor": end})
            lane.held[record.epoch, 0] = Received(record.model_copy(update={"body": body}))


def _is_over(at: Position, record: Record) -> bool:
    """Whether the record adds nothing: its epoch is closed, or what it accounts for has been let out."""
    return record.epoch in at.closed or (record.epoch == at.epoch and record.last_seq < at.next_seq)


def _ack(key: StreamKey, lane: _Lane, epoch: int, term: int) -> AckItem:
    at, seq = lane.committed, -1
    if at is not None and epoch == at.epoch:
        seq = at.next_seq - 1
    elif at is not None and epoch in at.closed:
        seq = CLOSED_SEQ
    return AckItem(
        source=key.source, stream=cast("Stream", key.stream), epoch=epoch, seq=seq, term=term, want_schema=lane.wanted
    )


def _forget(lane: _Lane, epoch: int, last_seq: int) -> None:
    """Early records that a gap or the end of their epoch has overtaken."""
    for place in [place for place in lane.held if place[0] == epoch and place[1] <= last_seq]:
        del lane.held[place]
