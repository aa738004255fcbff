"""Placing a setpoint and following it to its end."""

from __future__ import annotations

import threading
from collections.abc import Callable
from secrets import token_hex

from pydantic import ValidationError
from rich.text import Text

from cloud.api.schema import CommandReply, OrderRequest
from cloud.api.times import NS, span
from cloud.cli import tables
from cloud.cli.client import Client, twin_path
from wire.errors import BadData, Unavailable
from wire.settings import quantity

WAIT = "10s"
ASK_AGAIN, FOLLOW_AGAIN = 6, 60
"""How many times in a row the API may fail to answer. Both are harmless to repeat: the key makes an order the same
order, and a cloud that restarts takes up its setpoints where it left them."""
PAUSE_S = 0.5
"""Between two such attempts."""


def place(
    client: Client,
    twin: str,
    actuator: str,
    value: str,
    *,
    reason: str,
    key: str | None,
    deadline: str,
    told: Callable[[Text], None] | None,
) -> CommandReply:
    """Ask, tell every step as it happens, and return the final story.

    Raises BadData for what is no order, Unavailable, naming the setpoint, if the API goes away meanwhile.
    """
    wanted = quantity(value)
    try:
        order = OrderRequest(
            actuator=actuator,
            value=wanted.value,
            unit=wanted.unit or None,
            key=key or token_hex(12),
            reason=reason,
            deadline_s=span(deadline) / NS,
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise BadData("malformed", f"{first['loc'][-1]}: {first['msg']}") from None
    story = _patiently(lambda: client.post(twin_path(twin, "setpoints"), order, CommandReply), ASK_AGAIN)
    seen = _tell(story, 0, told)
    while not story.final:
        story = _follow(client, story)
        seen = _tell(story, seen, told)
    return story


def _follow(client: Client, story: CommandReply) -> CommandReply:
    path, query = f"/v1/setpoints/{story.id}", {"wait": WAIT, "after": str(len(story.steps))}
    try:
        return _patiently(lambda: client.get(path, CommandReply, query), FOLLOW_AGAIN)
    except Unavailable as error:
        raise Unavailable(f"setpoint {story.id} is {story.state}, and then: {error}") from None


def _patiently(ask: Callable[[], CommandReply], attempts: int) -> CommandReply:
    for _ in range(attempts - 1):
        try:
            return ask()
        except Unavailable:
            threading.Event().wait(PAUSE_S)
    return ask()


def _tell(story: CommandReply, seen: int, told: Callable[[Text], None] | None) -> int:
    if told is not None:
        for step in story.steps[seen:]:
            told(tables.step(step))
    return len(story.steps)
