"""Carries an outbox's records to the next hop and hears what it has committed.

Each stream has its own window, so results never wait behind telemetry. The broker is a lossy pipe: only the next
hop's acks count.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

from wire import codec
from wire.delivery import StreamKey
from wire.errors import BadData, Unavailable
from wire.messages import Ack, AckItem, Record
from wire.runtime.link import Link
from wire.runtime.observe import Counters
from wire.runtime.outbox import Outbox
from wire.runtime.outbox_file import FRONT, renumbered
from wire.runtime.outbox_types import Pending
from wire.sending import Mark, Parcel, Sender

STREAMS = ("telemetry", "results")
FRAME_READINGS = 1000
FRAME_RECORDS = 500
FRAME_BYTES = 256 << 10
READ_AHEAD = 4
"""Frames' worth of records that are read from the outbox at once."""
ASK_AGAIN_S = 1.0
"""Pause between two repetitions of a question or of its answer."""
LOW_ACKS_MEAN_LOSS = 5
"""So many acks below what was committed before, and no other: the next hop has lost its memory."""
OLD_TERMS_MEAN_CLOCK = 5
"""So many acks of an earlier term, and no other: its owner is the present one, and its clock was put back."""


class _Lane:
    """One stream on its way up."""

    def __init__(self, stream: str, window: int) -> None:
        self.stream = stream
        self.sender = Sender(window)
        self.cursor = FRONT
        self.round = 0
        """How often the stream has gone back."""
        self.wake = asyncio.Event()

    def resume(self) -> None:
        """Send at once what is not acknowledged."""
        row = self.sender.recall()
        if row is not None:
            self.cursor = row - 1
        self.round += 1
        self.wake.set()

    def start_over(self) -> None:
        """Read everything again that is not acknowledged."""
        self.sender.clear()
        self.cursor = FRONT
        self.round += 1
        self.wake.set()


class _Peer:
    """What the next hop has said about one epoch of one stream."""

    __slots__ = ("low", "old", "seq", "term")

    def __init__(self) -> None:
        self.seq = -2
        self.term = -1
        self.low = 0
        self.old = 0


class Uplink:
    """``up_topic`` gives the topic of a stream, ``ack_topic`` is where the next hop answers."""

    def __init__(
        self,
        outbox: Outbox,
        link: Link,
        *,
        up_topic: Callable[[str], str],
        ack_topic: str,
        window: int = 64,
        counters: Counters | None = None,
        now: Callable[[], int] = time.time_ns,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.counters = counters if counters is not None else Counters()
        self._outbox = outbox
        self._link = link
        self._up_topic = up_topic
        self._ack_topic = ack_topic
        self._window = window
        self._now = now
        self._clock = clock
        self._peers: dict[tuple[StreamKey, int], _Peer] = {}
        self._answered: dict[StreamKey, float] = {}
        self._lanes: dict[str, _Lane] = {}

    @property
    def lag_s(self) -> float:
        """Age of the oldest record that was sent and that the next hop has not committed."""
        stamps = [lane.sender.oldest for lane in self._lanes.values() if lane.sender.oldest is not None]
        return max(0.0, (self._now() - min(stamps)) / 1e9) if stamps else 0.0

    async def run(self) -> None:
        """Send until cancelled."""
        self._lanes = {stream: _Lane(stream, self._window) for stream in STREAMS}
        if self._outbox.replaced:
            self.counters.fail("outbox-damaged")
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._listen(), name="uplink/acks")
            tasks.create_task(self._follow_sessions(), name="uplink/sessions")
            tasks.create_task(self._follow_outbox(), name="uplink/outbox")
            for lane in self._lanes.values():
                tasks.create_task(self._carry(lane), name=f"uplink/{lane.stream}")

    async def _carry(self, lane: _Lane) -> None:
        """One stream: read, send, wait for a reason to go on."""
        while True:
            lane.wake.clear()
            due = await self._prove(lane)
            if due is None:
                await self._fill(lane)
                with suppress(Unavailable):
                    for parcel in lane.sender.send(self._clock()):
                        await self._link.publish(self._up_topic(lane.stream), parcel.payload)
                        self.counters.sent += 1
                due = lane.sender.due
            self.counters.lag_s = self.lag_s
            with suppress(TimeoutError):
                async with asyncio.timeout(None if due is None else max(0.0, due - self._clock())):
                    await lane.wake.wait()

    async def _prove(self, lane: _Lane) -> float | None:
        """Before the first record of this life is sent, ask what the next hop has: a file from an old image must not
        use its numbers a second time. Returns when to ask again, or None if all is well."""
        if self._outbox.source is None:
            return None
        key = StreamKey(self._outbox.source, lane.stream)
        if not self._outbox.unproven(key):
            return None
        raw = await self._outbox.schema(StreamKey(key.source, "telemetry"))
        if raw is None:
            return None
        with suppress(Unavailable):
            await self._publish_schema(key, raw, self._outbox.epoch)
        return self._clock() + ASK_AGAIN_S

    async def _fill(self, lane: _Lane) -> None:
        while lane.sender.free:
            began = lane.round
            found, cursor = await self._outbox.pending(
                lane.stream, lane.cursor, max_readings=READ_AHEAD * FRAME_READINGS, max_bytes=READ_AHEAD * FRAME_BYTES
            )
            if lane.round != began:
                continue
            lane.cursor = cursor
            for parcel in _parcels(found):
                lane.sender.push(parcel)
            if not found:
                return

    async def _follow_sessions(self) -> None:
        """A new session with the broker: whatever was under way may be lost, so send it again at once."""
        session = 0
        while True:
            session = await self._link.connected(session)
            for lane in self._lanes.values():
                lane.resume()

    async def _follow_outbox(self) -> None:
        version = 0
        while True:
            version = await self._outbox.grown(version)
            for lane in self._lanes.values():
                lane.wake.set()

    async def _listen(self) -> None:
        async for delivery in self._link.subscribe(self._ack_topic):
            try:
                ack = codec.decode(Ack, delivery.payload)
            except BadData as error:
                self.counters.drop(error.reason)
                continue
            self.counters.received += 1
            for stream, lane in self._lanes.items():
                items = [item for item in ack.items if item.stream == stream]
                if items:
                    await self._hear(lane, items)
                    if ack.resume:
                        lane.resume()

    async def _hear(self, lane: _Lane, items: list[AckItem]) -> None:
        """Settle what is committed; start over if the next hop's memory and ours do not fit."""
        settled: dict[tuple[StreamKey, int], int] = {}
        for item in items:
            key = StreamKey(item.source, item.stream)
            if item.want_schema is not None:
                await self._answer(key, item.want_schema)
            if self._is_old(key, item):
                continue
            if self._has_lost(key, item) and await self._outbox.rewind(key, item.epoch, item.seq):
                self.counters.fail("rewound")
                lane.start_over()
            elif not await self._outbox.settle(key, item.epoch, item.seq):
                self.counters.fail("rollback")
                for each in self._lanes.values():
                    each.start_over()
                return
            settled[key, item.epoch] = item.seq
        lane.sender.acknowledge(settled, self._clock())
        lane.wake.set()

    def _is_old(self, key: StreamKey, item: AckItem) -> bool:
        """An ack of an earlier owner, overtaken by one of the present owner."""
        peer = self._peers.setdefault((key, item.epoch), _Peer())
        peer.old = peer.old + 1 if item.term < peer.term else 0
        if 0 < peer.old < OLD_TERMS_MEAN_CLOCK:
            return True
        if peer.old:
            peer.term, peer.old = -1, 0
        return False

    def _has_lost(self, key: StreamKey, item: AckItem) -> bool:
        """Whether this ack may go back behind an earlier one: a new owner, or one that insists."""
        peer = self._peers[key, item.epoch]
        fresh = item.term > peer.term
        peer.term = item.term
        if item.seq >= peer.seq:
            peer.seq, peer.low = item.seq, 0
            return fresh
        peer.low += 1
        if not fresh and peer.low < LOW_ACKS_MEAN_LOSS:
            return False
        peer.seq, peer.low = item.seq, 0
        return True

    async def _answer(self, key: StreamKey, schema_hash: str) -> None:
        """Send the schema that was asked for, not more often than it makes sense."""
        at = self._clock()
        if at < self._answered.get(key, 0.0):
            return
        raw = await self._outbox.schema(key, schema_hash)
        if raw is None:
            self.counters.drop("schema-unknown")
            return
        self._answered[key] = at + ASK_AGAIN_S / 4
        with suppress(Unavailable):
            await self._publish_schema(key, raw, codec.decode(Record, raw).epoch)

    async def _publish_schema(self, key: StreamKey, raw: bytes, epoch: int) -> None:
        """A schema record outside the sequence."""
        record = renumbered(raw.replace(b'"stream":"telemetry"', b'"stream":"%s"' % key.stream.encode(), 1), epoch, -1)
        await self._link.publish(self._up_topic(key.stream), codec.join_frame([record]))


def _parcels(found: list[Pending]) -> Iterator[Parcel]:
    """Cut a row of records into frames."""
    frame: list[Pending] = []
    readings = size = 0
    for each in found:
        full = readings + each.readings > FRAME_READINGS or size + len(each.raw) > FRAME_BYTES
        if frame and (full or len(frame) >= FRAME_RECORDS):
            yield _parcel(frame)
            frame, readings, size = [], 0, 0
        frame.append(each)
        readings += each.readings
        size += len(each.raw)
    if frame:
        yield _parcel(frame)


def _parcel(frame: list[Pending]) -> Parcel:
    marks = {(each.key, each.epoch): each.last_seq for each in frame}
    return Parcel(
        codec.join_frame(each.raw for each in frame),
        tuple(Mark(key, epoch, last_seq) for (key, epoch), last_seq in marks.items()),
        frame[0].stamp,
        frame[0].id,
    )
