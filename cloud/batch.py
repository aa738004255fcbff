"""From a batch of records to everything that its commit must write: a function of the worker's memory, without I/O."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from cloud.bank import Bank
from cloud.columns import Decoded, Schema, decode
from cloud.commands.model import Told
from cloud.figures import Tally
from cloud.fleet import Fleet
from cloud.history.base import Batch, Bytes, EstimateRows, Event, Ints, RawChunk
from cloud.routing import Fate, Routed, fates, join, route, select
from wire.delivery import Received
from wire.errors import BadData
from wire.messages import UNVERIFIED, GapBody, ReadingsBody, Record, ResultBody, SchemaBody

log = logging.getLogger("twinline.worker")

SETPOINT_REFUSED = "setpoint-refused"
MAX_SCHEMAS = 8
"""Declarations kept for each source: a record may still name the one before."""


@dataclass(frozen=True, eq=False)
class Staged:
    """A batch after the twins have seen it; what is left is to write it down.

    ``received`` (R,) are the edges' stamps of all readings in it. ``schemas`` are schema records by source, encoded.
    ``results`` is emptied when they have been handed over.
    """

    batch: Batch
    results: list[Told]
    schemas: Mapping[str, bytes]
    received: Ints


@dataclass(eq=False)
class _Open:
    """A batch on its way through the records."""

    decoded: list[Decoded] = field(default_factory=list)
    routed: list[Routed] = field(default_factory=list)
    results: list[Told] = field(default_factory=list)
    schemas: dict[str, bytes] = field(default_factory=dict)
    gaps: list[Event] = field(default_factory=list)
    forgeries: list[Event] = field(default_factory=list)
    refused: list[Event] = field(default_factory=list)


class Batcher:
    """Applies records to the twins, in stream order; everything it remembers is in the checkpoint.

    ``schemas`` are the declarations known, by source and hash.
    """

    def __init__(self, bank: Bank, fleet: Fleet, tally: Tally) -> None:
        self.schemas: dict[str, dict[str, Schema]] = {}
        self._bank = bank
        self._fleet = fleet
        self._tally = tally

    def learn(self, record: Record, body: SchemaBody) -> None:
        """Remember a source's declaration."""
        known = self.schemas.setdefault(record.source, {})
        known.pop(body.schema_hash, None)
        known[body.schema_hash] = Schema.of(record.source, body)
        while len(known) > MAX_SCHEMAS:
            del known[next(iter(known))]

    def schema(self, record: Record) -> Schema | None:
        """The declaration that a readings record names, if it is known."""
        if not isinstance(record.body, ReadingsBody):
            return None
        return self.schemas.get(record.source, {}).get(record.body.schema_hash)

    def apply(self, records: Sequence[Received]) -> Staged:
        """Let the twins see the records; each reading and each gap is counted once. Never call twice for one batch."""
        now = _Open()
        for item in records:
            try:
                self._sort_in(item, now)
            except BadData as error:
                self._tally.outcomes["malformed"] += item.readings or 1
                now.refused.append(_refusal(item.record, error))
        if now.refused:
            first = now.refused[0]
            log.warning("%d records refused, the first one of %s: %s", len(now.refused), first.subject, first.text)
        estimates, happened = self._fuse(now) if now.decoded else ([], [])
        chunks = [decoded.chunk for decoded in now.decoded]
        self._tally.stored += sum(len(chunk.point) for chunk in chunks)
        received = [decoded.received for decoded in now.decoded]
        return Staged(
            batch=Batch(chunks, estimates, [*now.gaps, *now.forgeries, *now.refused, *happened]),
            results=now.results,
            schemas=now.schemas,
            received=np.concatenate(received) if received else np.zeros(0, dtype=np.int64),
        )

    def _sort_in(self, item: Received, now: _Open) -> None:
        record, body = item.record, item.record.body
        match body:
            case ReadingsBody():
                schema = self.schema(record)
                if schema is None:
                    raise BadData("schema", f"nobody has declared {body.schema_hash}")
                decoded = decode(record, body, schema)
                now.decoded.append(decoded)
                now.routed.append(route(decoded.chunk, self._fleet.routes(record.source, schema)))
                if body.filtered:
                    self._tally.outcomes["filtered"] += body.filtered
            case SchemaBody():
                self.learn(record, body)
                now.schemas[record.source] = item.raw
            case ResultBody(cmd_id=cmd_id) if cmd_id == UNVERIFIED:
                self._tally.outcomes[SETPOINT_REFUSED] += 1
                now.forgeries.append(_forgery(record, body))
            case ResultBody():
                now.results.append(Told(record.source, body))
            case GapBody():
                self._tally.outcomes["gap"] += body.count
                now.gaps.append(_gap(record, body))

    def _fuse(self, now: _Open) -> tuple[list[EstimateRows], list[Event]]:
        """One step of the bank for all chunks; then every reading's fate is known."""
        outputs = self._bank.step(join([select(routed.events, routed.good) for routed in now.routed]))
        start = 0
        for decoded, routed in zip(now.decoded, now.routed, strict=True):
            count = int(np.count_nonzero(routed.good))
            self._count(decoded.chunk, routed, outputs.outcome[start : start + count])
            self._fleet.newest.take(routed, fused=True)
            start += count
        return outputs.estimates, outputs.events

    def _count(self, chunk: RawChunk, routed: Routed, outcome: Bytes) -> None:
        fate = fates(chunk, routed)
        np.minimum.at(fate, routed.row[routed.good], outcome)
        for code, count in enumerate(np.bincount(fate, minlength=len(Fate)).tolist()):
            if count:
                self._tally.outcomes[Fate(code).name.lower()] += count


def _gap(record: Record, body: GapBody) -> Event:
    text = f"{body.count} readings between {body.start} and {body.end} ns were dropped: {body.reason}"
    identity = f"{record.source}/{record.stream}/{record.epoch}/{record.seq}"
    return Event(f"gap/{identity}", body.start, "gap", record.source, text)


def _forgery(record: Record, body: ResultBody) -> Event:
    text = f"{body.reason}: not written; the envelope names {body.device}/{body.point}"
    identity = f"{record.source}/{record.stream}/{record.epoch}/{record.seq}"
    return Event(f"{SETPOINT_REFUSED}/{identity}", body.at, SETPOINT_REFUSED, record.source, text)


def _refusal(record: Record, error: BadData) -> Event:
    identity = f"{record.source}/{record.stream}/{record.epoch}/{record.seq}"
    time = record.body.base if isinstance(record.body, ReadingsBody) else 0
    return Event(f"refused/{identity}", time, "refused", record.source, str(error))
