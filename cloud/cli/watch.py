"""The live view: every twin, refreshed until Ctrl-C."""

from __future__ import annotations

import threading

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from cloud.api.schema import NowReply, StatsReply, TwinsReply
from cloud.cli import tables
from cloud.cli.client import Client, twin_path
from wire.errors import Rejected, Unavailable


def watch_twins(client: Client, names: list[str], every_s: float, console: Console) -> None:
    """Show the named twins, or all, until interrupted; a cloud that goes away is shown as away, not as an end."""
    pause = threading.Event()
    with Live(Text("waiting for the first answer"), console=console, screen=False, auto_refresh=False) as live:
        try:
            while not pause.wait(every_s if live.renderable else 0.0):
                live.update(_picture(client, names), refresh=True)
        except KeyboardInterrupt:
            return


def _picture(client: Client, names: list[str]) -> RenderableType:
    try:
        wanted = names or [line.twin for line in client.get("/v1/twins", TwinsReply).twins]
        stats = client.get("/v1/stats", StatsReply)
        twins = [_twin(client, name) for name in wanted]
    except Unavailable as error:
        return Text(f"the cloud is away: {error}", "red")
    backlog = sum(item.backlog for item in stats.presence)
    total = Text(f"{stats.readings_applied} readings, {stats.duplicates} duplicates, backlog {backlog}", "dim")
    last = [] if stats.last_setpoint is None else [tables.outcome(stats.last_setpoint)]
    return Group(total, *last, *twins)


def _twin(client: Client, name: str) -> RenderableType:
    try:
        return tables.now(client.get(twin_path(name, "now"), NowReply))
    except Rejected as error:
        return Text(f"{name}: {error.detail}", "yellow")
