"""Setpoints from the link to the lanes: judge, persist the revision, act, report."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

from edge.guard import Desk, Key, Last, Verdict, claimed, judge
from edge.lane import Lane, Outcome
from edge.revisions import Revisions
from wire.errors import Unavailable
from wire.messages import UNVERIFIED, PointRevision, ResultBody, Setpoint, State
from wire.runtime.link import Delivery
from wire.runtime.observe import Counters
from wire.runtime.service import backoff

_REPORTS = 256
"""Results waiting for their commit; when full, the lane that has another one waits."""
_RETRY_CAP_S = 1.0
TOLD_AT_ONCE = 8
TOLD_EVERY_S = 10.0
"""So many repetitions or forgeries of one reason are told of one by one, and then one in so many seconds."""

Append = Callable[[ResultBody], Awaitable[object]]


class Reporter:
    """Commits results in order, beside the work that they report, so that no write waits for a disk."""

    def __init__(self, append: Append, revisions: Revisions, now: Callable[[], int]) -> None:
        self._append = append
        self._revisions = revisions
        self._now = now
        self._waiting: asyncio.Queue[ResultBody] = asyncio.Queue(_REPORTS)

    async def run(self) -> None:
        """Commit what is reported, until cancelled; a full disk only delays it."""
        while True:
            body = await self._waiting.get()
            for pause in backoff(_RETRY_CAP_S):
                try:
                    await self._append(body)
                    break
                except Unavailable:
                    await asyncio.sleep(pause)

    async def report(self, key: Key, unit: str, outcome: Outcome) -> None:
        """Say what became of a command, with the last revision that is on disk for its point."""
        device, point = key
        held = self._revisions.held.get(key)
        await self._waiting.put(
            ResultBody(
                cmd_id=outcome.cmd_id,
                device=device,
                point=point,
                state=outcome.state,
                reason=outcome.reason,
                at=self._now(),
                term=held.term if held else 0,
                revision=held.revision if held else 0,
                unit=unit,
                value=outcome.value,
                readback=outcome.readback,
            )
        )


class Allowance:
    """How often each reason may be told: whoever floods the topic does not get to flood the results stream."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._left: dict[str, tuple[float, float]] = {}

    def grants(self, reason: str) -> bool:
        """True if it may be told now; the reasons are the few that the guard knows."""
        now = self._clock()
        left, since = self._left.get(reason, (TOLD_AT_ONCE, now))
        left = min(left + (now - since) / TOLD_EVERY_S, TOLD_AT_ONCE)
        self._left[reason] = (left - 1 if left >= 1 else left, now)
        return left >= 1


class Actuator:
    """Takes envelopes one by one; what a lane does with them never holds up the next.

    Everything refused is answered with its reason. A repetition is answered as progress, and what nobody trusted has
    signed in nobody's name, so neither can end a command.
    """

    def __init__(
        self,
        desk: Desk,
        lanes: Mapping[Key, Lane],
        revisions: Revisions,
        reporter: Reporter,
        counters: Counters,
        *,
        now: Callable[[], int],
        clock: Callable[[], float],
        clock_trusted: Callable[[int], bool],
    ) -> None:
        self._desk = desk
        self._lanes = lanes
        self._revisions = revisions
        self._reporter = reporter
        self._counters = counters
        self._now = now
        self._clock_trusted = clock_trusted
        self._log = logging.getLogger("twinline.edge.setpoints")
        self._commands: dict[Key, str] = {}
        self._allowance = Allowance(clock)
        self._told: set[str] = set()

    async def run(self, inbox: AsyncIterator[Delivery]) -> None:
        """Handle setpoints as they come, until cancelled."""
        async for delivery in inbox:
            self._counters.received += 1
            if delivery.retain:
                await self._set_aside(delivery.payload, "retained")
            else:
                await self.handle(delivery.payload)

    async def handle(self, payload: bytes) -> None:
        """Judge one envelope; whatever it holds, the next one is served."""
        now = self._now()
        verdict = judge(payload, self._desk, await self._pasts(), now, clock_trusted=self._clock_trusted(now))
        setpoint = verdict.setpoint
        if setpoint is None:
            await self._set_aside(payload, verdict.reason)
        elif verdict.action == "repeat":
            self._drop(verdict.reason)
            if self._allowance.grants(verdict.reason):
                await self._answer(setpoint, verdict)
        elif verdict.action == "refuse":
            self._drop(verdict.reason)
            await self._answer(setpoint, verdict)
        else:
            await self._accept(setpoint, verdict, now)

    async def _accept(self, setpoint: Setpoint, verdict: Verdict, now: int) -> None:
        key = (setpoint.device, setpoint.point)
        await self._revisions.keep(
            PointRevision(device=key[0], point=key[1], term=setpoint.term, revision=setpoint.revision)
        )
        self._commands[key] = setpoint.cmd_id
        self._counters.sent += 1
        if verdict.action == "renew":
            self._lanes[key].renew(setpoint.hold_s)
            return
        await self._answer(setpoint, verdict)
        await self._lanes[key].submit(setpoint, (setpoint.exp - now) / 1e9)

    async def _pasts(self) -> Mapping[Key, Last]:
        pasts = {}
        for key, lane in self._lanes.items():
            if self._desk.limits[key].rate is not None:
                await lane.learn()
            held = self._revisions.held.get(key)
            term, revision = (held.term, held.revision) if held else (0, -1)
            pasts[key] = lane.last(term, revision, self._commands.get(key, ""))
        return pasts

    async def _answer(self, setpoint: Setpoint, verdict: Verdict) -> None:
        outcome = Outcome(setpoint.cmd_id, verdict.state, verdict.reason or State.ACCEPTED.value)
        await self._reporter.report((setpoint.device, setpoint.point), setpoint.unit, outcome)

    async def _set_aside(self, payload: bytes, reason: str) -> None:
        """Tell of an envelope that nothing vouches for, without naming a command."""
        self._drop(reason)
        if self._allowance.grants(reason):
            await self._reporter.report(claimed(payload), "", Outcome(UNVERIFIED, State.REJECTED, reason))

    def _drop(self, reason: str) -> None:
        """Counted each time, said once for each reason: whoever floods the topic does not get to flood the log."""
        self._counters.drop(reason)
        if reason not in self._told:
            self._told.add(reason)
            self._log.warning("setpoint refused: %s (further ones are only counted)", reason)
