"""What happens on stage: twins come alive, setpoints are asked for, the picture is kept fresh, everything drains."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from simulators.demo.cast import CUES, ROLES, Cue
from simulators.demo.client import Client
from simulators.demo.replies import Command, Now, Stats
from simulators.demo.view import Scene
from wire.errors import Rejected, Unavailable
from wire.runtime.outbox import Outbox

log = logging.getLogger("twinline.demo")

POLL_S = 0.5
QUIET_S = 1.0
"""The edges have said their last word when their counts have not moved for this long."""


@dataclass
class Board:
    """What is known while the play runs; the one place that the view reads."""

    note: str = "starting"
    begun: float | None = None
    twins: dict[str, Now] = field(default_factory=dict)
    stats: Stats | None = None
    orders: dict[str, Command] = field(default_factory=dict)
    backlog: int = 0

    def scene(self, restarts: int, clock: float) -> Scene:
        """A picture of this moment."""
        elapsed = 0.0 if self.begun is None else clock - self.begun
        return Scene(elapsed, self.note, self.twins, self.stats, tuple(self.orders.values()), self.backlog, restarts)


async def until_answering(client: Client) -> None:
    """Wait until the cloud answers."""
    while True:
        try:
            await client.stats()
        except Unavailable:
            await asyncio.sleep(0.1)
        else:
            return


async def until_alive(client: Client, board: Board) -> None:
    """Wait until every twin believes something."""
    while len(board.twins) < len(ROLES):
        await refresh(client, board)
        await asyncio.sleep(0.1)


async def refresh(client: Client, board: Board) -> None:
    """Ask the cloud how things are; what it cannot say just now stays as it was."""
    for role in ROLES:
        try:
            board.twins[role.twin] = await client.now(role.twin)
        except (Unavailable, Rejected):
            continue
    try:
        board.stats = await client.stats()
    except Unavailable:
        return


async def keep_fresh(client: Client, board: Board, outboxes: Sequence[Path]) -> None:
    """Refresh the board until cancelled."""
    while True:
        await refresh(client, board)
        board.backlog = sum([await _pending(path) for path in outboxes])
        await asyncio.sleep(POLL_S)


async def perform(client: Client, board: Board, duration_s: float) -> None:
    """Ask for every setpoint at its time."""
    begun = time.monotonic()
    async with asyncio.TaskGroup() as tasks:
        for cue in CUES:
            await asyncio.sleep(max(0.0, begun + cue.at * duration_s - time.monotonic()))
            tasks.create_task(_order(client, board, cue), name=f"cue/{cue.actuator}/{cue.value}")


async def _order(client: Client, board: Board, cue: Cue) -> None:
    """Ask, and follow the story to its final state; while the cloud is away, ask again."""
    key = f"{cue.twin}-{cue.actuator}-{time.time_ns():x}"
    command: Command | None = None
    while command is None or not command.final:
        try:
            if command is None:
                # The key makes asking again harmless: it is the same command.
                news = await client.order(cue.twin, cue.actuator, cue.value, cue.reason, key)
            else:
                news = await client.command(command.id, len(command.steps))
        except Unavailable:
            await asyncio.sleep(POLL_S)
            continue
        if command is None or len(news.steps) > len(command.steps):
            log.info("%s %s = %g %s: %s %s", *_told(news))
        board.orders[news.id] = command = news


def _told(command: Command) -> tuple[str, str, float, str, str, str]:
    return command.twin, command.actuator, command.value, command.unit, command.state, command.reason


async def drained(outboxes: Sequence[Path], within_s: float) -> None:
    """Wait until nothing waits on any disk and no count moves; raises Unavailable if that takes too long."""
    before: list[tuple[int, int]] = []
    begun = since = time.monotonic()
    while time.monotonic() - begun < within_s:
        totals = [await asyncio.to_thread(Outbox.inspect, path) for path in outboxes]
        counts = [(each.committed_records, each.pending_records) for each in totals]
        if counts != before:
            before, since = counts, time.monotonic()
        elif not any(pending for _, pending in counts) and time.monotonic() - since > QUIET_S:
            return
        await asyncio.sleep(0.1)
    raise Unavailable(f"not drained after {within_s:.0f} s, (committed, pending) is {before}")


async def applied(client: Client, committed: int, within_s: float) -> Stats:
    """The cloud's figures once it has applied everything, or what it has after ``within_s``."""
    deadline = time.monotonic() + within_s
    while True:
        try:
            stats = await client.stats()
            if stats.readings_applied >= committed or time.monotonic() > deadline:
                return stats
        except Unavailable:
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(0.1)


async def _pending(path: Path) -> int:
    try:
        return (await asyncio.to_thread(Outbox.inspect, path)).pending_records
    except Unavailable:
        return 0
