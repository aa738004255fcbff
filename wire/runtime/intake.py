"""Takes in what senders send, commits it in batches, and only then answers.

While the commit's store is away the batch is tried again, nothing is acknowledged and nothing more is read, so that
the senders' disks are the buffer.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress

from wire import codec
from wire.delivery import Position, Received, Receiver, StreamKey
from wire.errors import BadData, Unavailable
from wire.messages import Ack, AckItem, Frame
from wire.runtime.link import Delivery, Link, Subscription
from wire.runtime.observe import Counters
from wire.runtime.service import backoff
from wire.topics import may_carry

log = logging.getLogger("twinline.intake")

RETRY_CAP_S = 2.0
INBOX_FRAMES = 1024
"""Frames that may wait for the receiver; the oldest is dropped beyond that, and sent again by its sender."""
BURST_FRAMES = 64
"""Frames that are taken along although the batch is old enough, if they have arrived already."""

Commit = Callable[[list[Received], Mapping[StreamKey, Position]], Awaitable[None]]
"""Make the records durable together with the receiver's positions; Unavailable if the store is away."""


class Intake:
    """``topic_filter`` is where frames arrive; ``ack_topic`` gives the topic of the answer to a frame's topic.

    A batch is committed when its first record is ``linger_s`` old or it holds ``max_readings``. ``term`` is stamped on
    every ack. ``routes`` are the topics that the receiver's streams came on in an earlier life, as far as they are
    known: their senders hear where they stand without asking. ``refused(topic, payload, reason)`` sets aside a payload
    that is no frame, or that speaks for a source whose topic it did not come on; the pipeline goes on.
    """

    def __init__(
        self,
        link: Link,
        topic_filter: str,
        receiver: Receiver,
        commit: Commit,
        ack_topic: Callable[[str], str],
        *,
        term: Callable[[], int],
        routes: Mapping[StreamKey, str] | None = None,
        linger_s: float = 0.0,
        max_readings: int = 5000,
        refused: Callable[[str, bytes, str], None] | None = None,
        counters: Counters | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.counters = counters if counters is not None else Counters()
        self._link = link
        self._filter = topic_filter
        self._receiver = receiver
        self._commit = commit
        self._ack_topic = ack_topic
        self._term = term
        self._linger_s = linger_s
        self._max_readings = max_readings
        self._refused = refused
        self._clock = clock
        self._routes = dict(routes or {})

    async def run(self) -> None:
        """Take in until cancelled."""
        inbox = self._link.subscribe(self._filter, capacity=INBOX_FRAMES)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow_sessions(), name="intake/sessions")
            tasks.create_task(self._work(inbox), name="intake/frames")

    async def _follow_sessions(self) -> None:
        """Both ends of a broker that comes back connect in any order, and what one sends before the other listens is
        gone: so a new session begins with telling the senders where they stand, and none has to wait for a timer."""
        session = 0
        while True:
            session = await self._link.connected(session)
            self._receiver.remind(self._routes)
            await self._answer(resume=True)

    async def _work(self, inbox: Subscription) -> None:
        while True:
            await self._gather(inbox)
            while len(self._receiver):
                await self._settle()

    async def _gather(self, inbox: Subscription) -> None:
        """Read frames until a batch is full or old enough; repeats and early records are answered at once."""
        due: float | None = None
        overdue = 0
        while self._receiver.waiting_readings < self._max_readings and overdue < BURST_FRAMES:
            try:
                async with asyncio.timeout(None if due is None else due - self._clock()):
                    delivery = await anext(inbox)
            except TimeoutError:
                return
            self._take_in(delivery)
            await self._answer()
            if due is None and len(self._receiver):
                due = self._clock() + self._linger_s
            overdue += due is not None and self._clock() >= due

    def _take_in(self, delivery: Delivery) -> None:
        try:
            frame = _checked(delivery)
        except BadData as error:
            self.counters.drop(error.reason)
            if self._refused is not None:
                self._refused(delivery.topic, delivery.payload, str(error))
            return
        self.counters.received += 1
        for record in frame.records:
            self._routes[StreamKey(record.source, record.stream)] = delivery.topic
            self._receiver.offer(record)

    async def _settle(self) -> None:
        """Commit one batch, however long it takes, and say so."""
        batch = self._receiver.take(self._max_readings)
        positions = self._receiver.positions()
        pauses, away = backoff(RETRY_CAP_S), False
        while True:
            try:
                await self._commit(batch, positions)
                break
            except Unavailable as error:
                self.counters.fail("unavailable")
                if not away:
                    log.warning("cannot commit, trying again: %s", error)
                away = True
            await asyncio.sleep(next(pauses))
        if away:
            log.info("committing again")
        self._receiver.committed()
        await self._answer()

    async def _answer(self, *, resume: bool = False) -> None:
        """Publish the acks that are due, one message to each sender."""
        by_topic: dict[str, list[AckItem]] = {}
        for item in self._receiver.acks(self._term()):
            topic = self._ack_topic(self._routes[StreamKey(item.source, item.stream)])
            by_topic.setdefault(topic, []).append(item)
        for topic, items in by_topic.items():
            # a lost answer is repeated when the sender repeats its question
            with suppress(Unavailable):
                await self._link.publish(topic, codec.encode(Ack(items=items, resume=resume)))
                self.counters.sent += 1


def _checked(delivery: Delivery) -> Frame:
    """The frame, if every record in it may come on this topic; raises BadData."""
    frame = codec.decode(Frame, delivery.payload)
    for record in frame.records:
        if not may_carry(delivery.topic, record.source, record.stream):
            raise BadData("origin", f"{record.source} {record.stream} does not speak on this topic")
    return frame
