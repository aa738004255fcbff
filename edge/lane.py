"""One writable point: writes the newest accepted setpoint, watches the read-back, and drives the safe value when the
lease ends. A lane that starts writes nothing until it is told to."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from edge.config import Write
from edge.guard import Last
from wire.errors import Rejected, Unavailable
from wire.messages import Setpoint, State

_SAFE_RETRY_S = 0.5
_STEP_S = 0.02
"""Time between two looks at the read-back, at least; a quarter of the dwell where that is longer."""


class Target(Protocol):
    """The device behind a lane; values in the points' own units."""

    @property
    def online(self) -> bool: ...

    async def write(self, point: int, value: float) -> None:
        """Raises Rejected for the device's own refusal, Unavailable if nobody knows whether it was written."""
        ...

    async def fetch(self, point: int) -> float | None:
        """The value now, None if it is bad; raises Unavailable."""
        ...


class Outcome(NamedTuple):
    """What happened to a command, and with which values."""

    cmd_id: str
    state: State
    reason: str
    value: float | None = None
    readback: float | None = None


Report = Callable[[Outcome], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class _Order:
    setpoint: Setpoint
    deadline: float
    """Latest monotonic time to start writing."""


class Lane:
    """Owned by one task, which runs `run`; `submit`, `renew` and `last` are called beside it."""

    def __init__(
        self, target: Target, point: int, readback: int, write: Write, report: Report, clock: Callable[[], float]
    ) -> None:
        self._target = target
        self._point = point
        self._readback = readback
        self._write = write
        self._report = report
        self._clock = clock
        self._log = logging.getLogger("twinline.edge.setpoints")
        self._waiting: _Order | None = None
        self._news = asyncio.Event()
        self._cmd_id = ""
        self._value: float | None = None
        self._since = clock()
        self._lease_until: float | None = None

    def last(self, term: int = 0, revision: int = -1, cmd_id: str = "") -> Last:
        """The past of this point for the guard, completed with what is on disk."""
        age = self._clock() - self._since
        standing = self._lease_until is not None and self._cmd_id == cmd_id
        return Last(term, revision, cmd_id, self._value, age, standing)

    async def learn(self) -> None:
        """Look at the point once if nothing is known of it, so that a rate limit has something to start from."""
        if self._value is None and self._target.online:
            try:
                self._value = await self._target.fetch(self._point)
            except Unavailable:
                return

    async def submit(self, setpoint: Setpoint, start_within_s: float) -> None:
        """Queue a setpoint; one that still waits is superseded, because only the newest counts."""
        overtaken, self._waiting = self._waiting, _Order(setpoint, self._clock() + start_within_s)
        self._news.set()
        if overtaken is not None and overtaken.setpoint.cmd_id != setpoint.cmd_id:
            await self._report(Outcome(overtaken.setpoint.cmd_id, State.SUPERSEDED, "newer"))

    def renew(self, hold_s: float) -> None:
        """The standing value holds for so long from now."""
        self._lease_until = self._clock() + hold_s

    async def run(self) -> None:
        """Carry out orders and end leases, until cancelled."""
        while True:
            order = await self._next()
            if order is None:
                await self._make_safe()
            else:
                await self._carry_out(order)

    async def _next(self) -> _Order | None:
        """The next order, or None when the lease has ended."""
        while self._waiting is None:
            left = None if self._lease_until is None else self._lease_until - self._clock()
            if left is not None and left <= 0:
                return None
            self._news.clear()
            try:
                async with asyncio.timeout(left):
                    await self._news.wait()
            except TimeoutError:
                continue
        order, self._waiting = self._waiting, None
        return order

    async def _carry_out(self, order: _Order) -> None:
        setpoint = order.setpoint
        if self._clock() > order.deadline:
            await self._report(Outcome(setpoint.cmd_id, State.EXPIRED, "deadline"))
        elif not self._target.online:
            await self._report(Outcome(setpoint.cmd_id, State.FAILED, "device-away"))
        else:
            await self._report(await self._write_and_watch(setpoint))

    async def _write_and_watch(self, setpoint: Setpoint) -> Outcome:
        cmd_id, value = setpoint.cmd_id, setpoint.value
        try:
            await self._target.write(self._point, value)
        except Rejected as error:
            return Outcome(cmd_id, State.FAILED, error.reason)
        except Unavailable:
            self._stands(cmd_id, None, setpoint.hold_s)
            return Outcome(cmd_id, State.UNKNOWN, "no-answer", value)
        self._stands(cmd_id, value, setpoint.hold_s)
        return await self._watch(cmd_id, value)

    def _stands(self, cmd_id: str, value: float | None, hold_s: float) -> None:
        """From now on the lease runs, even if nobody knows whether the device took the value."""
        self._cmd_id, self._value, self._since = cmd_id, value, self._clock()
        self._lease_until = self._clock() + hold_s

    async def _watch(self, cmd_id: str, value: float) -> Outcome:
        """Compare the read-back until it has stayed within tolerance for the dwell, or can no longer do so in time."""
        write, settled_by = self._write, self._clock() + self._write.settle
        good_since: float | None = None
        seen: float | None = None
        while True:
            if self._waiting is not None:
                return Outcome(cmd_id, State.SUPERSEDED, "newer", value, seen)
            reading = await self._look()
            seen = seen if reading is None else reading
            now = self._clock()
            if reading is None or abs(reading - value) > write.tolerance:
                good_since = None
                if now >= settled_by:
                    state = State.UNKNOWN if seen is None else State.MISMATCH
                    return Outcome(cmd_id, state, "readback" if seen is not None else "no-readback", value, seen)
            else:
                good_since = now if good_since is None else good_since
                if now - good_since >= write.dwell:
                    return Outcome(cmd_id, State.VERIFIED, "readback", value, reading)
            await asyncio.sleep(max(_STEP_S, write.dwell / 4))

    async def _look(self) -> float | None:
        try:
            return await self._target.fetch(self._readback)
        except (Unavailable, Rejected):
            return None

    async def _make_safe(self) -> None:
        """Write the safe value, for as long as it takes; a newer setpoint ends the attempt."""
        cmd_id, safe, failed = self._cmd_id, self._write.safe, False
        while self._waiting is None:
            try:
                await self._target.write(self._point, safe)
            except (Unavailable, Rejected) as error:
                if not failed:
                    self._log.error("lease of %s ended and the safe value cannot be written: %s", cmd_id, error)
                failed = True
                await asyncio.sleep(_SAFE_RETRY_S)
                continue
            self._value, self._since, self._lease_until = safe, self._clock(), None
            self._log.warning("lease of %s ended, safe value written", cmd_id)
            await self._report(Outcome(cmd_id, State.ABORTED, "lease-ended", safe, await self._look()))
            return
