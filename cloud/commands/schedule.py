"""What a live command needs next, and when. Pure: facts and a time in, an action out."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from cloud.commands.model import Entry
from wire.messages import State

NS = 1_000_000_000
NEVER = 1 << 63
AGAIN_NS = 2 * NS
"""A setpoint that nobody has accepted by then is sent again within its deadline: the way down promises nothing."""


class Action(Enum):
    """What to do with one command now."""

    WAIT = "wait"
    SEND = "send"
    RENEW = "renew"
    CLOSE = "close"
    RELEASE = "release"


class Next(NamedTuple):
    """``at`` is when the command has to be looked at again (ns UTC); now, unless the action is WAIT."""

    action: Action
    at: int
    state: State = State.UNKNOWN
    reason: str = ""


def following(entry: Entry, now: int, *, inherited: bool = False, held_back: bool = False) -> Next:
    """The next action for one entry.

    ``inherited``: taken over from a process that died, so a setpoint without a ``sent`` line may have been sent all
    the same. ``held_back``: a newer command of the same point is on its way, so renewing this one would undo it.
    """
    command, state = entry.command, entry.state
    give_up = command.exp + round(command.patience_s * NS)
    if state is State.REQUESTED and not inherited:
        if now >= command.exp:
            return Next(Action.CLOSE, now, State.EXPIRED, "never-sent")
        return Next(Action.SEND, now)
    if not state.final:
        if now >= give_up:
            return Next(Action.CLOSE, now, State.UNKNOWN, "interrupted" if state is State.REQUESTED else "no-result")
        if state is State.SENT and entry.granted is not None and now < command.exp:
            again = entry.granted + AGAIN_NS
            return Next(Action.RENEW, now) if now >= again else Next(Action.WAIT, min(again, command.exp))
        return Next(Action.WAIT, give_up)
    if not entry.standing or entry.granted is None:
        return Next(Action.WAIT, NEVER)
    return _lease(entry.granted, round(command.hold_s * NS), now, held_back=held_back)


def _lease(granted: int, hold: int, now: int, *, held_back: bool) -> Next:
    if now >= granted + hold:
        return Next(Action.RELEASE, now, reason="lease-ended")
    due = granted + (hold if held_back else hold // 3)
    return Next(Action.RENEW, now) if now >= due else Next(Action.WAIT, due)
