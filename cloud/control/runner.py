"""Runs the controllers of twins in mode ``act``: estimate in, order out. Everything else is ``cloud.commands``.

An estimate that is stale or too uncertain blocks automatic writes: the standing order is released, and the edge drives
its safe value when the lease ends.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Sequence

from cloud.api.ports import Belief, LiveView
from cloud.commands.model import Entry, Order, TwinView
from cloud.commands.service import Commands
from cloud.control.level import Law, LevelConfig, Memory, begin, fit, step
from cloud.twins.model import Twin
from wire.errors import ConfigError, Rejected
from wire.messages import State

log = logging.getLogger("twinline.control")
NS = 1_000_000_000
PAUSE_S = 30.0
"""After an order that did not end well nothing is asked for this long: whoever refused must not be flooded."""


class Controller:
    """One controller; ``run`` it as a task."""

    def __init__(
        self, config: LevelConfig, twins: TwinView, live: LiveView, commands: Commands, *, now: Callable[[], int]
    ) -> None:
        self._config = config
        self._twins = twins
        self._live = live
        self._commands = commands
        self._now = now
        self._memory: Memory | None = None
        self._stepped = 0
        self._order: str | None = None
        self._blocked = "not started"

    async def run(self) -> None:
        """Look once every period until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(self._config.period)

    async def look(self) -> None:
        """One look: order, wait, or let go."""
        twin = self._twins.twin(self._config.twin)
        law, blocked = _fitted(self._config, twin)
        belief = None
        if twin is not None and law is not None:
            belief = self._live.beliefs([twin.name], self._now()).get(twin.name)
            blocked = blocked or hindrance(law, belief)
        if blocked != self._blocked:
            log.info("%s: %s", self._config.control, blocked or "acting")
            self._blocked = blocked
        if blocked or twin is None or law is None or belief is None:
            await self._let_go(blocked)
            return
        last = None if self._order is None else await self._commands.get(self._order)
        if last is None or last.state.final:
            await self._act(twin, law, belief, last)

    async def _act(self, twin: Twin, law: Law, belief: Belief, last: Entry | None) -> None:
        level, now = float(belief.mean[law.column]), self._now()
        held = last is not None and last.standing
        if last is not None and not held and now < self._stepped + round(PAUSE_S * NS):
            return
        if self._memory is None or not held:
            self._memory = begin(law, level, _readback(twin, law, belief))
            moved = self._memory
        else:
            moved = step(law, self._memory, level, (now - self._stepped) / NS)
        self._stepped = now
        sent = last.command.value_si if last is not None and held else None
        self._memory = moved
        if sent is not None and abs(moved.output - sent) <= law.deadband:
            return
        await self._ask(law, moved.output)

    async def _ask(self, law: Law, output: float) -> None:
        config = self._config
        order = Order(
            twin=config.twin,
            actuator=law.actuator,
            value=law.unit.from_si(output),
            issuer=f"control/{config.control}"[:64],
            reason=f"{config.state} to {config.target.value:g} {config.target.unit}"[:200],
            deadline_s=max(config.period, 2.0),
            slot=config.slot,
        )
        try:
            entry = await self._commands.request(order)
        except Rejected as error:
            log.warning("%s: refused: %s", config.control, error)
            return
        if entry.state is State.REJECTED and entry.reason != self._blocked:
            log.warning("%s: rejected: %s", config.control, entry.reason)
        self._order = entry.command.cmd_id

    async def _let_go(self, reason: str) -> None:
        order, self._order, self._memory = self._order, None, None
        if order is not None:
            await self._commands.release(order, f"control: {reason}")


def hindrance(law: Law, belief: Belief | None) -> str:
    """Why nothing may be written on this estimate; empty if nothing is in the way."""
    if belief is None:
        return "no estimate"
    if (belief.at - belief.time) / NS > law.max_age_s:
        return "stale estimate"
    sigma = float(belief.sigma[law.column])
    if not math.isfinite(sigma) or sigma > law.max_sigma:
        return "uncertain estimate"
    return ""


def controllers(
    configs: Sequence[LevelConfig], twins: TwinView, live: LiveView, commands: Commands, now: Callable[[], int]
) -> list[Controller]:
    """One controller for each configuration."""
    return [Controller(config, twins, live, commands, now=now) for config in configs]


def _fitted(config: LevelConfig, twin: Twin | None) -> tuple[Law | None, str]:
    if twin is None:
        return None, f"no twin {config.twin}"
    if twin.mode != "act":
        return None, f"twin is in mode {twin.mode}"
    try:
        return fit(config, twin), ""
    except ConfigError as error:
        return None, str(error)


def _readback(twin: Twin, law: Law, belief: Belief) -> float:
    """The actuator's newest read-back; its safe value while there is none."""
    for item in twin.type.inputs:
        measured = belief.measured.get(item.name)
        if item.actuator == law.actuator and measured is not None and measured.value is not None:
            return measured.value
    return next(item.safe for item in twin.type.actuators if item.name == law.actuator)
