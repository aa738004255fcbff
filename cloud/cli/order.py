"""Placing a setpoint and following it to its end."""

from __future__ import annotations

from collections.abc import Callable
from secrets import token_hex

from rich.text import Text

from cloud.api.schema import CommandReply, OrderRequest
from cloud.cli import tables
from cloud.cli.client import Client
from wire.errors import Unavailable
from wire.settings import duration, quantity

WAIT = "10s"
PATIENCE = 3
"""How many times in a row the API may fail to answer before following ends; the setpoint goes on without us."""


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

    Raises Unavailable, naming the setpoint, if the API goes away meanwhile.
    """
    wanted = quantity(value)
    order = OrderRequest(
        actuator=actuator,
        value=wanted.value,
        unit=wanted.unit or None,
        key=key or token_hex(12),
        reason=reason,
        deadline_s=duration(deadline),
    )
    story = client.post(f"/v1/twins/{twin}/setpoints", order, CommandReply)
    seen = _tell(story, 0, told)
    while not story.final:
        story = _follow(client, story)
        seen = _tell(story, seen, told)
    return story


def _follow(client: Client, story: CommandReply) -> CommandReply:
    for attempt in range(1, PATIENCE + 1):
        try:
            return client.get(f"/v1/setpoints/{story.id}", CommandReply, {"wait": WAIT, "after": str(len(story.steps))})
        except Unavailable as error:
            if attempt == PATIENCE:
                raise Unavailable(f"setpoint {story.id} is {story.state}, and then: {error}") from None
    return story


def _tell(story: CommandReply, seen: int, told: Callable[[Text], None] | None) -> int:
    if told is not None:
        for step in story.steps[seen:]:
            told(tables.step(step))
    return len(story.steps)
