"""What goes into an outbox, what comes out of it, and what it counts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from wire import codec
from wire.delivery import Position, StreamKey
from wire.errors import TwinlineError
from wire.messages import Body, GapBody, ReadingsBody, Record, SchemaBody

READINGS, SCHEMA, GAP, OTHER = range(4)
"""Kinds of stored records; only the first is ever dropped by a quota."""


class Damaged(TwinlineError):
    """The file cannot be trusted any more; the next start sets it aside and opens a new epoch."""


@dataclass(frozen=True, slots=True)
class Totals:
    """What happened to the readings, exact at every instant because it is part of each transaction.

    ``committed`` counts what was entrusted to this outbox, ``acked`` what the next hop has committed, ``dropped`` what
    the quota turned into gap records; ``bytes`` is what the pages in use take.
    """

    committed_records: int = 0
    committed_readings: int = 0
    acked_readings: int = 0
    dropped_readings: int = 0
    pending_records: int = 0
    bytes: int = 0


class Pending(NamedTuple):
    """A committed record that waits for the next hop."""

    id: int
    key: StreamKey
    epoch: int
    seq: int
    last_seq: int
    readings: int
    stamp: int
    """When it was committed here, ns UTC."""
    raw: bytes


class Relayed(NamedTuple):
    """A record that keeps its foreign identity; ``schema_hash`` only on schema records."""

    key: StreamKey
    epoch: int
    seq: int
    last_seq: int
    raw: bytes
    readings: int = 0
    schema_hash: str | None = None
    gap: bool = False

    @classmethod
    def of(cls, record: Record, raw: bytes | None = None) -> Relayed:
        """A record with everything that can be told from it; ``raw`` spares the encoding."""
        body = record.body
        return cls(
            StreamKey(record.source, record.stream),
            record.epoch,
            record.seq,
            record.last_seq,
            codec.encode_record(record) if raw is None else raw,
            len(body.point) if isinstance(body, ReadingsBody) else 0,
            body.schema_hash if isinstance(body, SchemaBody) else None,
            isinstance(body, GapBody),
        )

    @property
    def kind(self) -> int:
        """How the quota treats it."""
        if self.schema_hash is not None:
            return SCHEMA
        return GAP if self.gap else READINGS if self.key.stream == "telemetry" else OTHER


class Entry(NamedTuple):
    """A body that waits for its seq."""

    stream: str
    body: Body
    readings: int = 0


@dataclass(slots=True)
class Work:
    """What one transaction does."""

    entries: list[Entry] = field(default_factory=list)
    relayed: list[Relayed] = field(default_factory=list)
    learned: list[Relayed] = field(default_factory=list)
    """Schemas that came outside the sequence: kept for whoever asks, never sent by themselves."""
    positions: dict[StreamKey, Position] = field(default_factory=dict)
    released: dict[tuple[StreamKey, int], int] = field(default_factory=dict)
    proven: set[StreamKey] = field(default_factory=set)

    def __bool__(self) -> bool:
        return bool(self.entries or self.relayed or self.learned or self.positions or self.released or self.proven)
