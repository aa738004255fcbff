"""The setpoint path of the cloud: check, enter in the ledger, sign, send, renew, and say how it ended.

A setpoint is never queued: it is sent within its deadline or it expires, and what nobody answers for ends as
``unknown``. While a verified command stands, a signed hold (same command and value, higher revision) renews its lease
every third of ``hold_s``; when renewals stop, the edge drives the declared safe value on its own.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from hashlib import sha256
from secrets import token_hex

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cloud.commands.checks import actuator_of, command_of, envelope, floor, refusal
from cloud.commands.ledger import Ledger
from cloud.commands.model import EdgeView, Entry, Order, Step, Told, TwinView
from cloud.commands.schedule import NEVER, NS, Action, Next, following
from wire.errors import Rejected, Unavailable
from wire.messages import REPEATED, ResultBody, State
from wire.points import PointId
from wire.runtime.link import Link
from wire.signing import sign

log = logging.getLogger("twinline.commands")

RETRY_S = 0.25
"""How soon a sending that failed is tried again, within its deadline."""
HEAR_S = 3.0
"""How long an order waits for the first word of an edge: after a start of ours, all of them announce themselves."""
SEND_S = 1.0
"""Longest wait for the broker's answer to one setpoint."""
LOOK_S = 1.0
"""Longest time between two looks at the clock, so that a clock that was set is noticed."""
NO_MOMENT = frozenset({"nonce", "clock-untrusted", "issued-in-future", "revision"})
"""Reasons of an edge for refusing a copy of a setpoint that say nothing about the one that it has accepted."""
PASSING = NO_MOMENT | {"deadline"}
"""Reasons of an edge for refusing one renewal that say nothing about the standing command itself."""
MAX_LIVE = 10_000
"""More live commands than this are refused as ``busy``."""


class Commands:
    """Call order: enter the ledger, then run ``run`` and the link's ``run`` as tasks; call the rest any time."""

    def __init__(
        self,
        ledger: Ledger,
        link: Link,
        twins: TwinView,
        edges: EdgeView,
        *,
        key: Ed25519PrivateKey,
        kid: str,
        now: Callable[[], int],
    ) -> None:
        self._ledger = ledger
        self._link = link
        self._twins = twins
        self._edges = edges
        self._key = key
        self._kid = kid
        self._now = now
        self._live: dict[str, Entry] = {}
        self._inherited: set[str] = set()
        self._changed = asyncio.Event()
        self._stopping = False
        self._entering = asyncio.Lock()
        self._sending = asyncio.Lock()
        """Held from a sending to its line in the ledger: no result is entered before the ``sent`` that it answers."""

    async def run(self) -> None:
        """Attend to every live command until cancelled; takes up first what an earlier process left."""
        self._stopping = False
        try:
            await self._attend_all()
        finally:
            # whoever waits for news is told that there will be none from here
            self._stopping = True
            self._wake()

    async def _attend_all(self) -> None:
        async with self._entering:
            for entry in await self._ledger.open_entries():
                if entry.command.cmd_id not in self._live:
                    self._live[entry.command.cmd_id] = entry
                    self._inherited.add(entry.command.cmd_id)
        while True:
            changed = self._changed
            due = min([await self._attend(cmd_id) for cmd_id in list(self._live)], default=NEVER)
            pause = min(max(due - self._now(), 0) / NS, LOOK_S)
            try:
                async with asyncio.timeout(pause):
                    await changed.wait()
            except TimeoutError:
                continue

    async def request(self, order: Order) -> Entry:
        """Enter an order; returns the command as ``requested``, or as ``rejected`` with its reason.

        Raises Rejected for what never becomes a command: ``unknown-twin``, ``unknown-actuator``, ``not-finite``,
        ``conflict`` (the key was used for another order), ``busy``.
        """
        await self._hear_of(order)
        async with self._entering:
            return await self._enter(order)

    async def _hear_of(self, order: Order) -> None:
        twin = self._twins.twin(order.twin)
        binding = None if twin is None else twin.actuators.get(order.actuator)
        if binding is None:
            return
        for _ in range(round(HEAR_S / RETRY_S)):
            if (
                self._edges.edge(binding.write.source) is not None
                and self._edges.device_unit(binding.write) is not None
            ):
                return
            await asyncio.sleep(RETRY_S)

    async def _enter(self, order: Order) -> Entry:
        digest = sha256(repr(asdict(order)).encode()).hexdigest()
        if order.key is not None:
            known = await self._ledger.find(order.key, digest)
            if known is not None:
                return known
        twin = self._twins.twin(order.twin)
        if twin is None:
            raise Rejected("unknown-twin", f"no twin {order.twin!r}")
        if len(self._live) >= MAX_LIVE:
            raise Rejected("busy", f"{MAX_LIVE} setpoints are live already")
        point = twin.actuators[actuator_of(twin, order.actuator).name].write
        unit, now = self._edges.device_unit(point), self._now()
        command = command_of(order, twin, cmd_id=token_hex(8), device_unit=unit, now=now)
        rivals = self._rivals(command.cmd_id, command.point)
        edge = self._edges.edge(point.source)
        reason, detail = refusal(command, actuator_of(twin, order.actuator), edge, [item.command for item in rivals])
        steps = [Step(State.REJECTED, reason, now, {"by": "cloud", "why": detail})] if reason else []
        entry, new = await self._ledger.enter(command, digest, *steps)
        if new and not reason:
            await self._supersede(rivals, entry)
            self._note(entry)
        return entry

    async def on_results(self, results: Sequence[Told]) -> None:
        """Take in what edges say they did; durable when it returns, and harmless when repeated."""
        async with self._sending:
            for result in results:
                await self._take(result.source, result.body)

    async def _take(self, source: str, result: ResultBody) -> None:
        """An edge is believed about its own points only."""
        try:
            entry = await self._current(result.cmd_id)
        except Rejected:
            log.warning("%s: a result names a setpoint that this ledger does not hold: %s", source, result.cmd_id)
            return
        told_of = f"{source}/{result.device}/{result.point}"
        if str(entry.command.point) != told_of:
            log.warning("a result for %s, which is about %s, names %s", result.cmd_id, entry.command.point, told_of)
            return
        step = told(entry, result, self._now())
        if step is not None:
            self._note(await self._ledger.add(result.cmd_id, step))
            await self._settle_rivals(result.cmd_id)

    async def release(self, cmd_id: str, reason: str) -> Entry:
        """Stop renewing a standing command: the edge drives the safe value when its lease ends."""
        entry = await self._current(cmd_id)
        if entry.standing:
            entry = await self._ledger.add(cmd_id, Step("released", reason, self._now()))
            self._note(entry)
        return entry

    async def get(self, cmd_id: str) -> Entry:
        """One command; Rejected("unknown-setpoint")."""
        return await self._ledger.entry(cmd_id)

    async def wait(self, cmd_id: str, timeout_s: float, after: int | None = None) -> Entry:
        """The command once it is final, or has more than ``after`` steps, or when the time is up or ``run`` ends."""
        changed, entry = self._changed, await self._current(cmd_id)
        try:
            async with asyncio.timeout(timeout_s):
                while not (self._stopping or entry.state.final or (after is not None and len(entry.steps) > after)):
                    await changed.wait()
                    changed, entry = self._changed, await self._current(cmd_id)
        except TimeoutError:
            return entry
        return entry

    async def newest(self) -> Entry | None:
        """The command that was requested last."""
        return await self._ledger.newest()

    async def counts(self) -> Mapping[str, int]:
        """Commands by final state."""
        return await self._ledger.counts()

    async def _attend(self, cmd_id: str) -> int:
        """Do what one command needs now; returns when to look at it again."""
        entry = self._live.get(cmd_id)
        if entry is None:
            return NEVER
        newer = any(not rival.state.final for rival in self._rivals(cmd_id, entry.command.point))
        turn = following(entry, self._now(), inherited=cmd_id in self._inherited, held_back=newer)
        if turn.action is Action.WAIT:
            return turn.at
        if turn.action in (Action.SEND, Action.RENEW):
            return await self._grant(entry)
        await self._end(entry, turn)
        return self._now()

    async def _grant(self, entry: Entry) -> int:
        """Send a signed setpoint or hold; returns when to look again."""
        command = entry.command
        edge = self._edges.edge(command.point.source)
        retry = self._now() + round(RETRY_S * NS)
        if edge is None or not edge.online or not edge.nonce:
            return retry
        revision = await self._ledger.reserve(command.point, floor(command, edge))
        now = self._now()
        exp = now + round(command.hold_s * NS / 3) if entry.standing else command.exp
        if command.cmd_id not in self._live or now >= exp:
            return now
        setpoint = envelope(command, edge, kid=self._kid, revision=revision, now=now, exp=exp)
        topic, payload = edge.route.setpoint(command.point.edge), sign(setpoint, self._key)
        async with self._sending:
            try:
                async with asyncio.timeout(SEND_S):
                    await self._link.publish(topic, payload, qos=1, retain=False)
            except (Unavailable, TimeoutError):
                # It may have left all the same: trying again under a higher revision is harmless at the edge.
                return retry
            what = State.SENT if entry.state is State.REQUESTED else "renewed"
            step = Step(what, "", now, {"term": edge.term, "revision": revision})
            self._note(await self._ledger.add(command.cmd_id, step))
        return self._now()

    async def _end(self, entry: Entry, turn: Next) -> None:
        what = turn.state if turn.action is Action.CLOSE else "released"
        log.info("setpoint %s of %s: %s %s", entry.command.cmd_id, entry.command.point, what, turn.reason)
        self._note(await self._ledger.add(entry.command.cmd_id, Step(what, turn.reason, self._now())))
        await self._settle_rivals(entry.command.cmd_id)

    async def _supersede(self, rivals: Sequence[Entry], newer: Entry) -> None:
        """End the unfinished commands of the point at once; a standing one stays until the newer is known to hold."""
        for rival in rivals:
            if not rival.state.final:
                step = Step(State.SUPERSEDED, f"by {newer.command.cmd_id}", self._now())
                self._note(await self._ledger.add(rival.command.cmd_id, step))

    async def _settle_rivals(self, cmd_id: str) -> None:
        """Release older standing commands once a newer one has, or may have, reached the device."""
        newer = await self._current(cmd_id)
        if newer.state in (State.REQUESTED, State.SENT, State.REJECTED, State.EXPIRED):
            return
        for rival in self._rivals(cmd_id, newer.command.point):
            if rival.standing and rival.command.requested <= newer.command.requested:
                step = Step("released", f"by {cmd_id}", self._now())
                self._note(await self._ledger.add(rival.command.cmd_id, step))

    async def _current(self, cmd_id: str) -> Entry:
        return self._live.get(cmd_id) or await self._ledger.entry(cmd_id)

    def _rivals(self, cmd_id: str, point: PointId) -> list[Entry]:
        return [
            entry for entry in self._live.values() if entry.command.point == point and entry.command.cmd_id != cmd_id
        ]

    def _note(self, entry: Entry) -> None:
        """Keep the newest story of a live command, drop a closed one, and wake whoever waits."""
        if entry.live:
            self._live[entry.command.cmd_id] = entry
        else:
            self._live.pop(entry.command.cmd_id, None)
            self._inherited.discard(entry.command.cmd_id)
        self._wake()

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


def told(entry: Entry, result: ResultBody, now: int) -> Step | None:
    """The line that a result adds to the story; None if the edge has said so before, or tells of no deed of its own.

    Repetitions are only noted, and so is the refusal of another copy of what the edge has accepted: whoever replays an
    envelope cannot end its command. After the end, a deed other than ``verified`` releases a standing command (the
    edge let its lease run out, or somebody else took the point), and anything else is only noted; so is the refusal of
    a single renewal that came at a wrong moment, because the next one may do.
    """
    said = f"{result.state} {result.reason}".strip()
    copied = entry.state is State.ACCEPTED and result.reason in NO_MOMENT
    if result.state in (State.REQUESTED, State.SENT) or any(step.detail.get("said") == said for step in entry.steps):
        return None
    detail: dict[str, object] = {"by": "edge", "said": said, "edge_time": result.at, "revision": result.revision}
    if result.value is not None:
        detail |= {"value": result.value, "unit": result.unit}
    if result.readback is not None:
        detail |= {"readback": result.readback, "unit": result.unit}
    if result.reason == REPEATED or copied:
        return Step("note", said, now, detail)
    if not entry.state.final:
        return Step(result.state, result.reason, now, detail)
    if entry.standing and result.state.final and result.state is not State.VERIFIED and result.reason not in PASSING:
        return Step("released", said, now, detail)
    return Step("note", f"after the end: {said}", now, detail)
