"""The messages that cross a process border: frozen, versioned, strict.

================  =====  ============================================================================
Frame             up     several *records*, each with its identity (source, stream, epoch, seq)
  SchemaBody             the points of a source, with units and types; first record of every epoch
  ReadingsBody           columns of readings: point index, time offset, value, quality
  GapBody                readings that were dropped by quota, in place of the records that held them
  ResultBody             progress or outcome of a setpoint (stream ``results``)
Ack               down   for each stream: everything up to ``seq`` is committed by the next hop
Alive             up     presence, retained, with a last will
Setpoint          down   the signed envelope of a command (``wire.signing`` carries it)
================  =====  ============================================================================

Numbers are finite, extra fields are refused, ``true`` is not a number. Times are integer nanoseconds UTC.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from wire.points import Name

VERSION = 1
MAX_FRAME_BYTES = 1 << 20
"""A larger payload is refused before it is parsed."""
MAX_RECORD_READINGS = 5_000

Stream = Literal["telemetry", "results"]
Source = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}/[a-z0-9][a-z0-9_-]{0,62}$")]
"""``site/edge``: whose outbox the stream lives in."""
Finite = Annotated[float, Field(allow_inf_nan=False)]
LIMIT = 1 << 62
"""Every count stays below: two of them can be added in 63 bits."""
Count = Annotated[int, Field(ge=0, lt=LIMIT)]
TimeNs = Annotated[int, Field(ge=0, lt=1 << 63)]
Version = Annotated[int, Field(ge=VERSION, le=VERSION)]


class Message(BaseModel):
    """What every message has in common."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


class PointDecl(Message):
    """One point as its source declares it; the list position is the point's index in readings."""

    device: Name
    point: Name
    unit: str
    """Unit of the values on this hop: the device's on edge -> gateway, canonical SI on gateway -> cloud."""
    device_unit: str
    """Unit at the device, kept so that setpoints can be turned back."""
    type: Literal["float", "int", "bool", "text"] = "float"
    writable: bool = False


class Predecessor(Message):
    """The life of the outbox before this one."""

    epoch: Count
    last_seq: Annotated[int, Field(ge=-1, lt=LIMIT)]


class SchemaBody(Message):
    """The points of one source. ``schema_hash`` names the edge's declaration and survives normalisation."""

    kind: Literal["schema"] = "schema"
    schema_hash: str
    config_hash: str
    points: list[PointDecl]
    predecessor: Predecessor | None = None


class ReadingsBody(Message):
    """Columns of readings, one row each.

    ``time = base + dt``; ``lag`` is the edge's receive time minus ``time`` (omitted: 0 for all); ``ordinal`` tells
    equal stamps of one point apart (omitted: 0); ``quality`` omitted means all good. ``value`` holds one float for
    each row that is neither bad nor listed in ``side``, in row order: a bad reading has a reason instead of a value.
    ``side`` holds (row, value) of text, enums and integers beyond 2^53, which never enter a filter.
    ``filtered`` counts rows that a gateway's deadband took out.
    """

    kind: Literal["readings"] = "readings"
    schema_hash: str
    base: TimeNs
    point: Annotated[list[int], Field(max_length=MAX_RECORD_READINGS)]
    dt: Annotated[list[int], Field(max_length=MAX_RECORD_READINGS)]
    value: Annotated[list[Finite], Field(max_length=MAX_RECORD_READINGS)]
    quality: Annotated[list[int], Field(max_length=MAX_RECORD_READINGS)] | None = None
    ordinal: Annotated[list[int], Field(max_length=MAX_RECORD_READINGS)] | None = None
    lag: Annotated[list[int], Field(max_length=MAX_RECORD_READINGS)] | None = None
    side: list[tuple[int, int | str]] = []
    filtered: Count = 0

    @model_validator(mode="after")
    def _columns_agree(self) -> Self:
        rows = len(self.point)
        for name, column in (("dt", self.dt), ("quality", self.quality), ("ordinal", self.ordinal), ("lag", self.lag)):
            if column is not None and len(column) != rows:
                raise ValueError(f"column {name} has {len(column)} rows, point has {rows}")
        bad = sum(code >= 128 for code in self.quality) if self.quality else 0
        if len(self.value) != rows - bad - len(self.side):
            raise ValueError(f"{len(self.value)} values for {rows} rows, {bad} bad and {len(self.side)} side values")
        if rows and (min(self.point) < 0 or min(self.dt) < 0):
            raise ValueError("a point index or a time offset is negative")
        return self


class GapBody(Message):
    """Stands for the records ``seq .. last_seq``, which were dropped; ``count`` is the readings they held."""

    kind: Literal["gap"] = "gap"
    last_seq: Count
    count: Count
    start: TimeNs
    end: TimeNs
    points: list[int] = []
    reason: Literal["quota", "damage", "rollback", "unknown"] = "quota"


class State(StrEnum):
    """Where a setpoint is; the last eight are final, and every setpoint ends in exactly one of them."""

    REQUESTED = "requested"
    SENT = "sent"
    ACCEPTED = "accepted"
    VERIFIED = "verified"
    MISMATCH = "mismatch"
    REJECTED = "rejected"
    EXPIRED = "expired"
    SUPERSEDED = "superseded"
    ABORTED = "aborted"
    FAILED = "failed"
    UNKNOWN = "unknown"

    @property
    def final(self) -> bool:
        return self not in (State.REQUESTED, State.SENT, State.ACCEPTED)


UNVERIFIED = "unverified"
"""Stands for the command's id where an envelope did not verify: what it claims to be is nobody's word."""
REPEATED = "repeated"
"""Reason of a copy of what the edge has already accepted; never the end of a command."""


class ResultBody(Message):
    """What the edge did with a setpoint; ``value`` was written, ``readback`` read afterwards, in the device's unit."""

    kind: Literal["result"] = "result"
    cmd_id: str
    device: Name
    point: Name
    state: State
    reason: str
    at: TimeNs
    term: Count
    revision: Count
    """Last (term, revision) that this edge has persisted for the point."""
    unit: str = ""
    value: Finite | None = None
    readback: Finite | None = None


Body = Annotated[SchemaBody | ReadingsBody | GapBody | ResultBody, Field(discriminator="kind")]


class Record(Message):
    """One unit of delivery: identity and body. Identity never changes between edge and cloud.

    ``seq`` counts from 0 within an epoch; -1 is a repeated schema record outside the sequence, sent on request.
    """

    source: Source
    stream: Stream
    epoch: Count
    seq: Annotated[int, Field(ge=-1, le=LIMIT)]
    body: Body

    @model_validator(mode="after")
    def _gap_goes_forward(self) -> Self:
        if self.last_seq < self.seq:
            raise ValueError(f"a gap from {self.seq} to {self.last_seq}")
        return self

    @property
    def last_seq(self) -> int:
        """The last sequence number that this record accounts for."""
        return self.body.last_seq if isinstance(self.body, GapBody) else self.seq


class Frame(Message):
    """One MQTT message on its way up."""

    v: Version = VERSION
    records: list[Record]


class AckItem(Message):
    """Everything of this stream up to and including ``seq`` is committed (-1: nothing yet).

    A lower ``seq`` under a higher ``term`` means "send again from here". ``want_schema`` asks for the schema record
    whose hash the receiver does not know.
    """

    source: Source
    stream: Stream
    epoch: Count
    seq: Annotated[int, Field(ge=-1, le=LIMIT)]
    term: Count = 0
    want_schema: str | None = None


class Ack(Message):
    """Answer of the next hop, after its own commit.

    ``resume``: nobody asked; the next hop has just begun to listen again and says where it stands. What was sent
    before may have reached nobody.
    """

    v: Version = VERSION
    items: list[AckItem]
    resume: bool = False


class PointRevision(Message):
    """Highest (term, revision) accepted for one writable point."""

    device: Name
    point: Name
    term: Count
    revision: Count


class Alive(Message):
    """Presence of one process; ``online`` is false in the last will and in the farewell."""

    v: Version = VERSION
    site: Name
    name: Name
    role: Literal["edge", "gateway"]
    online: bool
    at: TimeNs
    nonce: str
    """Names one boot of the process; a setpoint must carry it."""
    clock_offset_ns: int | None = None
    clock_trusted: bool = True
    backlog: Count = 0
    version: str = ""
    config_hash: str = ""
    schema_hash: str = ""
    revisions: list[PointRevision] = []


class Setpoint(Message):
    """The body of a signed command; `wire.signing` signs its bytes. ``value`` is in ``unit``, the device's unit.

    ``exp`` is the deadline to start writing; ``hold_s`` is the lease after which the edge drives the safe value unless
    a renewal (same ``cmd_id`` and value, higher revision) has come.
    """

    v: Version = VERSION
    kid: str
    site: Name
    edge: Name
    device: Name
    point: Name
    value: Finite
    unit: str
    cmd_id: Annotated[str, Field(min_length=1, max_length=64)]
    issuer: Annotated[str, Field(min_length=1, max_length=64)]
    slot: Annotated[int, Field(ge=1, le=16)]
    term: Count
    revision: Count
    iat: TimeNs
    exp: TimeNs
    hold_s: Annotated[float, Field(gt=0, le=86_400)]
    nonce: str
    reason: Annotated[str, Field(max_length=200)]
