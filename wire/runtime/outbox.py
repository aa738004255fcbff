"""The durable outbox: a record is on disk, with its number, before anybody may send it.

An edge *appends* bodies and gets their seq; a gateway *relays* records with the identity they came with. Either call
returns after the commit that holds it. One writer task commits whatever has gathered while the last commit ran, and
not sooner than ``linger_s`` after the last one began, so the disk is written evenly however many callers there are.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Self, TypeVar

from wire.delivery import Position, StreamKey
from wire.errors import Unavailable
from wire.messages import Body, SchemaBody
from wire.runtime import outbox_repair
from wire.runtime.blocking import finish
from wire.runtime.outbox_file import FRONT, OutboxFile, inspect
from wire.runtime.outbox_types import Damaged, Entry, Pending, Relayed, Totals, Work

__all__ = ["Outbox", "Pending", "Relayed", "Totals"]

T = TypeVar("T")

ROW_BYTES, READING_BYTES, SCHEMA_BYTES = 160, 40, 700
"""Estimates of what a record takes in the file, on the high side."""

MAX_WAITING = 512
"""Appended records that may wait for a commit; more callers wait before that."""
TAIL_BYTES = 1 << 20
RELEASE_LINGER_S = 0.5
"""Acks alone do not cause a commit sooner than this: forgetting late is harmless."""


@dataclass(slots=True)
class _Job:
    """One caller's part of a commit."""

    entry: Entry | None
    relayed: Sequence[Relayed]
    positions: Mapping[StreamKey, Position]
    done: asyncio.Future[int]


class _Tail:
    """The newest records, kept in memory so that in normal operation nothing is read back; the oldest go first."""

    def __init__(self) -> None:
        self._records: deque[Pending] = deque()
        self._bytes = 0

    def extend(self, records: Sequence[Pending]) -> None:
        self._records.extend(records)
        self._bytes += sum(len(each.raw) for each in records)
        while self._bytes > TAIL_BYTES:
            self._bytes -= len(self._records.popleft().raw)

    def behind(self, stream: str, after: int) -> tuple[list[Pending], int] | None:
        """The stream's records behind row ``after`` and the newest row, or None if some are only in the file."""
        if not self._records or after < self._records[0].id - 1:
            return None
        newest = self._records[-1].id
        if after >= newest:
            return [], after
        recent = takewhile(lambda each: each.id > after, reversed(self._records))
        return [each for each in recent if each.key.stream == stream][::-1], newest

    def clear(self) -> None:
        self._records.clear()
        self._bytes = 0


class Outbox:
    """``source`` is the edge's ``site/edge``, or None for a gateway, which only relays.

    ``quota_bytes`` caps the file with its journal: beyond it the oldest readings become gap records, and if even that
    makes no room the callers get Unavailable. ``grace_s`` is how long acknowledged records are kept for a next hop
    that loses its memory; they are the first to go. ``now`` is the wall clock in ns.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        source: str | None,
        quota_bytes: int = 1 << 30,
        linger_s: float = 0.02,
        grace_s: float = 0.0,
        now: Callable[[], int] = time.time_ns,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.source = source
        self._path = Path(path)
        self._quota = quota_bytes
        self._journal = min(8 << 20, quota_bytes // 4)
        self._linger_s = linger_s
        self._grace_ns = round(grace_s * 1e9)
        self._now = now
        self._clock = clock
        self._jobs: list[_Job] = []
        self._released: dict[tuple[StreamKey, int], int] = {}
        self._proven: set[StreamKey] = set()
        self._tail = _Tail()
        self._handed = FRONT
        self._version = 0
        self._closing = False
        self._sound = True

    async def __aenter__(self) -> Self:
        """Open the file and start the writer. Raises ConfigError if the place can never work."""
        self._wake, self._room, self._grown = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._writing, self._reading = asyncio.Lock(), asyncio.Lock()
        self._file = await finish(OutboxFile.open, self._path, self.source, self._now(), self._journal)
        self._tasks = asyncio.TaskGroup()
        await self._tasks.__aenter__()
        self._tasks.create_task(self._write(), name=f"outbox/{self._path.name}")
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Commit what is waiting, then close; also when cancelled."""
        self._closing = True
        self._wake.set()
        try:
            # an error in the body must not abort the writer: what was appended before it is still to be committed
            await self._tasks.__aexit__(None, None, None)
        finally:
            await finish(self._file.close, clean=self._sound)

    async def declare(self, schema: SchemaBody) -> None:
        """Say what the points are: appended if this epoch has not begun yet or knows another schema as the newest."""
        assert self.source is not None
        key = StreamKey(self.source, "telemetry")
        async with self._reading:
            known = await finish(self._file.schema, key)
        lane = self._file.lanes.get(key)
        if known is None or lane is None or lane.next_seq == 0 or f'"{schema.schema_hash}"'.encode() not in known:
            await self.append("telemetry", schema)

    async def append(self, stream: str, body: Body, readings: int = 0) -> int:
        """Commit one body; returns its seq. Waits while too many wait; raises Unavailable if the disk is full."""
        while len(self._jobs) >= MAX_WAITING:
            self._room.clear()
            await self._room.wait()
        return await self._enqueue(Entry(stream, body, readings), (), {})

    async def relay(self, records: Sequence[Relayed], positions: Mapping[StreamKey, Position]) -> None:
        """Commit records of other sources together with how far their receiver has come, in one transaction.

        A schema outside the sequence (seq -1) is only kept, for a next hop that asks for it.
        """
        await self._enqueue(None, records, positions)

    def positions(self) -> dict[StreamKey, Position]:
        """How far the receiver in front of this outbox has come, as committed."""
        return dict(self._file.positions)

    @property
    def totals(self) -> Totals:
        """What is committed, acknowledged and dropped, as of the last commit."""
        return self._file.totals

    @property
    def epoch(self) -> int:
        """Names this life of the file."""
        return self._file.epoch

    @property
    def replaced(self) -> bool:
        """Whether a damaged file had to be set aside for this one."""
        return self._file.replaced

    @staticmethod
    def inspect(path: str | Path) -> Totals:
        """The totals of a file that another process may have open."""
        return inspect(Path(path))

    async def pending(self, stream: str, after: int, *, max_readings: int, max_bytes: int) -> tuple[list[Pending], int]:
        """Committed records of a stream behind row ``after``, and the row to go on from."""
        async with self._reading:
            recent = self._tail.behind(stream, after)
            if recent is None:
                recent = await finish(self._file.pending, stream, after, max_readings, max_bytes)
            found, upto = recent
            if found and stream == "telemetry":
                self._handed = max(self._handed, found[-1].id)
        return found, upto

    async def schema(self, key: StreamKey, schema_hash: str | None = None) -> bytes | None:
        """The schema record with that hash, or the newest of the stream."""
        async with self._reading:
            return await finish(self._file.schema, key, schema_hash)

    async def grown(self, seen: int) -> int:
        """Wait until more has been committed than at version ``seen``; returns the version."""
        while self._version <= seen:
            self._grown.clear()
            await self._grown.wait()
        return self._version

    def unproven(self, key: StreamKey) -> bool:
        """Whether the next hop must still confirm that it knows no future of this file (see ``settle``)."""
        lane = self._file.lanes.get(key)
        return key.source == self.source and lane is not None and lane.unproven is not None and key not in self._proven

    async def settle(self, key: StreamKey, epoch: int, seq: int) -> bool:
        """The next hop has everything up to ``seq``: forget it, in some commit soon.

        Returns False if it has what this epoch never sent; then a new epoch has begun and all is to be sent again.
        """
        lane = self._file.lanes.get(key)
        if lane is not None and key.source == self.source and epoch == self._file.epoch:
            limit = lane.next_seq if lane.unproven is None or key in self._proven else lane.unproven
            if seq >= limit:
                now = self._now()
                call = partial(outbox_repair.reopen, self._file, key, seq, self._fresh_epoch(now), now)
                await self._repair(call, lambda place: place[0].source == self.source)
                return False
            self._proven.add(key)
        place = (key, epoch)
        self._released[place] = max(seq, self._released.get(place, -1))
        self._wake.set()
        return True

    async def rewind(self, key: StreamKey, epoch: int, seq: int) -> bool:
        """The next hop has lost what comes behind ``seq``; returns whether anything is to be sent again."""
        # only this stream's answer is out of date: what the next hop said about the others still counts
        call = partial(outbox_repair.rewind, self._file, key, epoch, seq, self._now())
        return await self._repair(call, lambda place: place == (key, epoch))

    async def _enqueue(
        self, entry: Entry | None, relayed: Sequence[Relayed], positions: Mapping[StreamKey, Position]
    ) -> int:
        if self._closing:
            raise Unavailable("the outbox is closing")
        done = asyncio.get_running_loop().create_future()
        self._jobs.append(_Job(entry, relayed, positions, done))
        self._wake.set()
        return int(await done)

    async def _repair(self, call: Callable[[], T], outdated: Callable[[tuple[StreamKey, int]], bool]) -> T:
        async with self._writing, self._reading:
            self._released = {place: seq for place, seq in self._released.items() if not outdated(place)}
            self._handed = FRONT
            self._tail.clear()
            outcome = await finish(call)
        self._announce()
        return outcome

    async def _write(self) -> None:
        """The writer: commits until told to close, and then once more."""
        earliest = 0.0
        while True:
            await self._idle()
            if not self._closing:
                await asyncio.sleep(max(0.0, earliest - self._clock()))
            earliest = self._clock() + self._linger_s
            async with self._writing:
                try:
                    await self._commit()
                except Damaged:
                    self._sound = False
                    raise
            if self._closing and not self._jobs:
                return

    async def _idle(self) -> None:
        """Until there is a job, or acks have waited long enough."""
        due: float | None = None
        while not self._jobs and not self._closing:
            if due is None and (self._released or self._proofs()):
                due = self._clock() + RELEASE_LINGER_S
            if due is not None and self._clock() >= due:
                return
            self._wake.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(None if due is None else due - self._clock()):
                    await self._wake.wait()

    async def _commit(self) -> None:
        jobs, self._jobs = self._jobs[:MAX_WAITING], self._jobs[MAX_WAITING:]
        self._room.set()
        work = Work(released=self._released, proven=self._proofs())
        for job in jobs:
            work.relayed += [each for each in job.relayed if each.seq >= 0]
            work.learned += [each for each in job.relayed if each.seq < 0]
            work.positions.update(job.positions)
            if job.entry is not None:
                work.entries.append(job.entry)
        if not work:
            return
        self._released = {}
        try:
            await self._make_room(work)
            stored = await finish(self._file.commit, work, self._now(), self._grace_ns)
        except Unavailable as error:
            self._put_back(work)
            for job in jobs:
                if not job.done.done():
                    job.done.set_exception(error)
            return
        self._tail.extend(stored)
        seqs = iter(stored[len(work.relayed) :])
        for job in jobs:
            seq = -1 if job.entry is None else next(seqs).seq
            if not job.done.done():
                job.done.set_result(seq)
        if jobs:
            self._announce()

    async def _make_room(self, work: Work) -> None:
        """Keep file and journal under the quota, before it is needed."""
        coming = sum(len(each.raw) + ROW_BYTES for each in work.relayed)
        coming += sum(READING_BYTES * each.readings + SCHEMA_BYTES for each in work.entries)
        limit = self._quota - self._journal
        missing = self._file.used() + coming - limit
        if missing <= 0 or not coming:
            return  # forgetting what is acked needs no room, and makes some
        async with self._reading:
            self._tail.clear()
            await finish(outbox_repair.drop, self._file, missing + limit // 20, self._handed, self._now())
        if self._file.used() + coming > limit:
            raise Unavailable("the outbox is full and holds nothing that may be dropped")

    def _put_back(self, work: Work) -> None:
        for place, seq in work.released.items():
            self._released[place] = max(seq, self._released.get(place, -1))

    def _proofs(self) -> set[StreamKey]:
        """Streams that the next hop has confirmed and the file does not say so yet. ``_proven`` itself keeps them for
        life: while their commit runs, the file still holds the old limit."""
        return {key for key in self._proven if self._file.lanes[key].unproven is not None}

    def _announce(self) -> None:
        self._version += 1
        self._grown.set()

    def _fresh_epoch(self, now: int) -> int:
        return max(now, self._file.epoch + 1)
