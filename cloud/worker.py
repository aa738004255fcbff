"""The worker: records in, twins stepped, history and checkpoint written, and only then acknowledged.

It owns its shards by a term. After a crash the next owner raises the term, restores the last checkpoint and acks what
that holds; the gateways send the rest again. `Fenced` ends a worker whose shards somebody else has claimed since.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from hashlib import blake2b
from typing import Protocol

from cloud import columns
from cloud.bank import Bank
from cloud.batch import Batcher, Staged
from cloud.checkpoint.base import Checkpoint, Claim
from cloud.commands.model import Told
from cloud.figures import Tally
from cloud.fleet import Fleet
from cloud.history.base import Batch, Event, History
from cloud.live import Live
from cloud.presence import Presences
from cloud.routing import route
from cloud.twins.model import Twin
from wire.codec import decode
from wire.delivery import Position, Received, Receiver, StreamKey
from wire.errors import BadData, Unavailable
from wire.messages import Frame, ReadingsBody, Record, SchemaBody
from wire.runtime.intake import Intake
from wire.runtime.link import Delivery, Link, Subscription
from wire.runtime.observe import Counters, Health
from wire.runtime.service import backoff
from wire.topics import CLOUD_ALIVE, CLOUD_EDGE_ALIVE, CLOUD_LATEST, CLOUD_UP, SHARDS, gateway_of

log = logging.getLogger("twinline.worker")

LINGER_S = 0.25
MAX_READINGS = 5_000
HOME_SHARD = 0
"""Where this one worker, which owns every shard, keeps what belongs to no single lane."""
MAX_SET_ASIDE = 100
"""Refused payloads that wait for the next commit; beyond it they are only counted."""
KEPT_OF_REFUSED = 200
"""Characters of a refused payload that are kept for people."""


class Registry(Protocol):
    """The registered twins, as the worker sees them."""

    @property
    def revision(self) -> int:
        """Grows whenever ``twins`` would answer differently."""
        ...

    def twins(self) -> Mapping[str, Twin]:
        """All twins by name."""
        ...


class Worker:
    """Owns the bank. ``on_results`` must be durable and idempotent: it is called before the results are acked."""

    def __init__(
        self,
        link: Link,
        bank: Bank,
        history: History,
        checkpoint: Checkpoint,
        registry: Registry,
        *,
        on_results: Callable[[Sequence[Told]], Awaitable[None]],
        now: Callable[[], int],
        linger_s: float = LINGER_S,
    ) -> None:
        self.counters = Counters()
        self._link = link
        self._bank = bank
        self._history = history
        self._checkpoint = checkpoint
        self._registry = registry
        self._on_results = on_results
        self._now = now
        self._linger_s = linger_s
        self._health = Health(log)
        self._presences = Presences()
        self._fleet = Fleet(bank)
        self._tally = Tally()
        self._batcher = Batcher(bank, self._fleet, self._tally)
        self._terms: dict[int, int] = {}
        self.live = Live(bank, self._fleet, self._batcher, self._tally, self._presences, self._terms, now=now)
        self._followed = -1
        self._saved: dict[StreamKey, Position] = {}
        self._staged: Staged | None = None
        self._aside: deque[Event] = deque()

    async def run(self) -> None:
        """Claim, restore, then take in until cancelled.

        Raises Fenced when another worker has claimed a shard, and BadData if the checkpoint is damaged.
        """
        claims = await self._claim()
        self._restore(claims)
        schemas = {StreamKey(source, "telemetry"): list(known) for source, known in self._batcher.schemas.items()}
        intake = Intake(
            self._link,
            CLOUD_UP,
            Receiver(self._saved, schemas=schemas),
            self._commit,
            lambda topic: gateway_of(topic).ack,
            term=lambda: self._terms[HOME_SHARD],
            linger_s=self._linger_s,
            max_readings=MAX_READINGS,
            refused=self._set_aside,
            counters=self.counters,
        )
        alive = self._link.subscribe(CLOUD_ALIVE), self._link.subscribe(CLOUD_EDGE_ALIVE)
        latest = self._link.subscribe(CLOUD_LATEST)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(intake.run(), name="worker/intake")
            tasks.create_task(self._link.run(), name="worker/link")
            tasks.create_task(self._listen(alive[0], self._hear), name="worker/alive")
            tasks.create_task(self._listen(alive[1], self._hear), name="worker/edge-alive")
            tasks.create_task(self._listen(latest, self._glance), name="worker/latest")

    async def _claim(self) -> list[Claim]:
        pauses = backoff(5.0)
        while True:
            try:
                claims = await self._checkpoint.claim(range(SHARDS))
            except Unavailable as error:
                self._health.lost("checkpoint", str(error))
                await asyncio.sleep(next(pauses))
            else:
                self._health.back("checkpoint")
                return claims

    def _restore(self, claims: Sequence[Claim]) -> None:
        self._terms.update({claim.shard: claim.term for claim in claims})
        blobs = {key: blob for claim in claims for key, blob in claim.blobs.items() if blob}
        for key, blob in blobs.items():
            kind, _, name = key.partition("/")
            if kind == "schema":
                record = decode(Record, blob)
                if isinstance(record.body, SchemaBody):
                    self._batcher.learn(record, record.body)
            elif kind == "position":
                self._saved[_stream(name)] = _position(blob)
            elif kind == "tally":
                self._tally.restore(blob)
        self._follow()
        for line in self._bank.restore(blobs):
            log.warning("checkpoint: %s", line)
        log.info("term %d: %d twins, %d streams", self._terms[HOME_SHARD], len(self._fleet.members), len(self._saved))

    def _follow(self) -> None:
        if self._registry.revision != self._followed:
            self._followed = self._registry.revision
            self._fleet.follow(self._registry.twins())

    async def _commit(self, records: Sequence[Received], positions: Mapping[StreamKey, Position]) -> None:
        """Write one batch down. Raises Unavailable with the batch staged, so that a repetition only writes."""
        if self._staged is None:
            self._follow()
            self._staged = self._batcher.apply(records)
        staged = self._staged
        if staged.results:
            await self._on_results(staged.results)
            staged.results.clear()
        aside = list(self._aside)
        await self._try("history", self._append(staged.batch, aside))
        moved = {key: position for key, position in positions.items() if self._saved.get(key) != position}
        await self._try("checkpoint", self._checkpoint.save(self._terms, self._blobs(staged, moved)))
        self._bank.saved()
        self._saved.update(moved)
        self._staged = None
        for _ in aside:
            self._aside.popleft()
        self._tally.latency.add((self._now() - staged.received) / 1e6)

    async def _try(self, part: str, writing: Awaitable[None]) -> None:
        try:
            await writing
        except Unavailable as error:
            self._health.lost(part, str(error))
            raise
        self._health.back(part)

    async def _append(self, batch: Batch, aside: Sequence[Event]) -> None:
        whole = Batch(batch.chunks, batch.estimates, [*batch.events, *aside])
        try:
            await self._history.append(whole)
        except BadData as error:
            log.error("the history refuses a batch, its parts are tried one by one: %s", error)
            await self._append_singly(whole)

    async def _append_singly(self, batch: Batch) -> None:
        parts = [
            *(Batch(chunks=[chunk]) for chunk in batch.chunks),
            *(Batch(estimates=[rows]) for rows in batch.estimates),
            *(Batch(events=[event]) for event in batch.events),
        ]
        for part in parts:
            try:
                await self._history.append(part)
            except BadData:
                self.counters.drop("history", sum(len(chunk.point) for chunk in part.chunks) or 1)

    def _blobs(self, staged: Staged, moved: Mapping[StreamKey, Position]) -> dict[tuple[int, str], bytes]:
        blobs = dict(self._bank.pack())
        blobs |= {f"schema/{source}": raw for source, raw in staged.schemas.items()}
        blobs |= {f"position/{'/'.join(key)}": json.dumps(position).encode() for key, position in moved.items()}
        blobs["tally"] = self._tally.pack()
        return {(HOME_SHARD, key): blob for key, blob in blobs.items()}

    def _set_aside(self, topic: str, payload: bytes, reason: str) -> None:
        """Keep the beginning of a payload that is no frame, with its reason, until the next commit."""
        self._tally.outcomes["unreadable"] += 1
        if len(self._aside) == MAX_SET_ASIDE:
            return
        identity = blake2b(topic.encode() + b"\0" + payload, digest_size=8).hexdigest()
        shown = payload[:KEPT_OF_REFUSED].decode(errors="replace")
        text = "".join(character if character.isprintable() else "?" for character in f"{reason}: {shown}")
        self._aside.append(Event(f"refused/{identity}", self._now(), "refused", topic, text))

    async def _listen(self, subscription: Subscription, take: Callable[[Delivery], None]) -> None:
        async for delivery in subscription:
            try:
                take(delivery)
            except BadData as error:
                self._set_aside(delivery.topic, delivery.payload, str(error))

    def _hear(self, delivery: Delivery) -> None:
        self._presences.hear(delivery, self._now())

    def _glance(self, delivery: Delivery) -> None:
        """Newest values that overtook a backlog: for people; stored and fused when their turn comes."""
        site = gateway_of(delivery.topic).site
        for record in decode(Frame, delivery.payload).records:
            if record.source.partition("/")[0] != site:
                raise BadData("misplaced", f"newest values of {record.source} on a topic of {site}")
            schema = self._batcher.schema(record)
            if isinstance(record.body, ReadingsBody) and schema is not None:
                chunk = columns.decode(record, record.body, schema).chunk
                self._fleet.newest.take(route(chunk, self._fleet.routes(record.source, schema)), fused=False)


def _stream(name: str) -> StreamKey:
    source, _, stream = name.rpartition("/")
    return StreamKey(source, stream)


def _position(blob: bytes) -> Position:
    try:
        epoch, next_seq, closed = json.loads(blob)
        return Position(int(epoch), int(next_seq), tuple(closed))
    except (ValueError, TypeError) as error:
        raise BadData("checkpoint", f"a position cannot be read: {error}") from error
