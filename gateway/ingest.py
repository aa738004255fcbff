"""One commit of the gateway: records of its edges, normalised, stored together with how far their streams have come."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

from gateway.config import GatewayConfig
from gateway.deadletter import DeadLetters
from gateway.latest import Newest
from gateway.normalise import Columns, columns, replaced, schema_to_si, to_si
from wire.codec import encode_record
from wire.delivery import Position, Received, StreamKey
from wire.errors import BadData
from wire.messages import GapBody, ReadingsBody, Record, SchemaBody
from wire.runtime.outbox import Outbox, Relayed

log = logging.getLogger("twinline.gateway")

Memory = Mapping[int, float]
"""Last value that a deadband let through, by point index."""


class Ingest:
    """Turns records into their SI form and hands them to the outbox. ``schemas`` are those of earlier lives."""

    def __init__(
        self,
        config: GatewayConfig,
        outbox: Outbox,
        dead_letters: DeadLetters,
        newest: Newest,
        schemas: Sequence[Record] = (),
        *,
        now: Callable[[], int],
    ) -> None:
        self._config = config
        self._outbox = outbox
        self._dead_letters = dead_letters
        self._newest = newest
        self._now = now
        self._columns: dict[tuple[str, str], Columns] = {}
        self._passed: dict[tuple[str, str], Memory] = {}
        for record in schemas:
            if isinstance(record.body, SchemaBody):
                self._learn(record.source, record.body)

    async def commit(self, records: Sequence[Received], positions: Mapping[StreamKey, Position]) -> None:
        """Store all of them or none; raises Unavailable if the disk refuses, and may then be called again."""
        passed = dict(self._passed)
        relayed = [self._relayed(received, passed) for received in records]
        await self._outbox.relay(relayed, positions)
        self._passed = passed

    def known(self) -> dict[StreamKey, list[str]]:
        """Hashes of the schemas that need not be asked for, by stream."""
        hashes: dict[StreamKey, list[str]] = {}
        for source, schema_hash in self._columns:
            hashes.setdefault(StreamKey(source, "telemetry"), []).append(schema_hash)
        return hashes

    def _relayed(self, received: Received, passed: dict[tuple[str, str], Memory]) -> Relayed:
        """The record as it goes up; a deadband's memory moves on in ``passed``, which counts only once committed."""
        record, body = received.record, received.record.body
        if isinstance(body, SchemaBody):
            return _changed(record, self._learn(record.source, body))
        if not isinstance(body, ReadingsBody):
            return Relayed.of(record, received.raw)
        key = (record.source, body.schema_hash)
        try:
            normalised = to_si(body, self._known(key), self._now(), passed.get(key, {}))
        except BadData as error:
            self._dead_letters.put(f"{record.source}/{record.epoch}/{record.seq}", received.raw, str(error))
            return _changed(record, replaced(body, record.seq))
        if normalised.passed:
            passed[key] = normalised.passed
        self._newest.take(record.source, normalised.body)
        return _changed(record, normalised.body)

    def glance(self, record: Record) -> Record:
        """A record of newest values in SI, for people; nothing is remembered. Raises BadData if it cannot be read."""
        body = record.body
        if not isinstance(body, ReadingsBody):
            raise BadData("malformed", f"newest values are readings, not {body.kind}")
        known = self._known((record.source, body.schema_hash))
        return record.model_copy(update={"body": to_si(body, known, self._now(), {}).body})

    def _known(self, key: tuple[str, str]) -> Columns:
        try:
            return self._columns[key]
        except KeyError:
            raise BadData("unknown-schema", key[1]) from None

    def _learn(self, source: str, schema: SchemaBody) -> SchemaBody:
        known, unknown = schema_to_si(schema)
        key = (source, schema.schema_hash)
        if key not in self._columns:
            for point in unknown:
                log.warning("%s: unit of %s is not known, its readings are bad/type", source, point)
            self._columns[key] = columns(schema, self._config.rules(source.partition("/")[2]))
        return known


def _changed(record: Record, body: SchemaBody | ReadingsBody | GapBody) -> Relayed:
    changed = record.model_copy(update={"body": body})
    return Relayed.of(changed, encode_record(changed))
