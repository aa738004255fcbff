"""(being filled) The durable outbox."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

from wire.delivery import Position, StreamKey
from wire.messages import Body, Record, SchemaBody


@dataclass(frozen=True, slots=True)
class Totals:
    committed_records: int = 0
    committed_readings: int = 0
    acked_readings: int = 0
    dropped_readings: int = 0
    pending_records: int = 0
    bytes: int = 0


class Relayed(NamedTuple):
    """One foreign record to be stored; ``schema_hash`` only on schema records."""

    key: StreamKey
    epoch: int
    seq: int
    last_seq: int
    raw: bytes
    readings: int = 0
    schema_hash: str | None = None

    @classmethod
    def of(cls, record: Record, raw: bytes | None = None) -> Relayed: ...


class Outbox:
    def __init__(
        self,
        path: str | Path,
        *,
        source: str | None,
        quota_bytes: int = 1 << 30,
        linger_s: float = 0.02,
        grace_s: float = 0.0,
        now: Callable[[], int] = time.time_ns,
    ) -> None: ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *exc: object) -> None: ...

    async def declare(self, schema: SchemaBody) -> None:
        """(edge) Append the schema if this epoch does not have it yet; remembered for later epochs."""

    async def append(self, stream: str, body: Body, readings: int = 0) -> int:
        """(edge) Returns the seq after the commit."""
        ...

    async def relay(self, records: Sequence[Relayed], positions: Mapping[StreamKey, Position]) -> None:
        """(gateway) Store foreign records and the receiver's positions in one transaction."""

    def positions(self) -> dict[StreamKey, Position]: ...

    @property
    def totals(self) -> Totals: ...

    @staticmethod
    def inspect(path: str | Path) -> Totals: ...
