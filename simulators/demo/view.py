"""The live view: each twin measured against estimated, the states nobody measures, and the last setpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from simulators.demo.cast import ROLES, Role
from simulators.demo.replies import Command, Now, StateNow, Stats

BAND = 1.96
"""Standard deviations on each side of the estimate: 95 % of a normal distribution."""


@dataclass(frozen=True)
class Scene:
    """What is known at one moment; empty fields are not known yet."""

    elapsed_s: float
    note: str
    twins: Mapping[str, Now] = field(default_factory=dict)
    stats: Stats | None = None
    orders: Sequence[Command] = ()
    """Newest last."""
    backlog: int = 0
    """Readings' records that wait on disk at the edges and the gateway."""
    restarts: int = 0


def draw(scene: Scene) -> RenderableType:
    """One picture of the scene."""
    parts: list[RenderableType] = [_twin(role, scene.twins[role.twin]) for role in ROLES if role.twin in scene.twins]
    if not parts:
        parts.append(Panel(Text(scene.note, style="dim"), title="Twinline"))
    # first of all: a screen that is too low cuts the end off
    return Group(_footer(scene), *parts)


def _twin(role: Role, now: Now) -> RenderableType:
    table = Table(expand=True, box=None, pad_edge=False)
    for column, side in (("state", "left"), ("measured", "right"), ("estimate", "right"), ("95 % band", "right")):
        table.add_column(column, justify="left" if side == "left" else "right", ratio=1)
    table.add_column("unit", ratio=1)
    for name, state in now.states.items():
        sensor = now.sensors.get(role.states[name].sensor or "") if name in role.states else None
        measured = Text("nobody measures", style="dim italic") if sensor is None else _number(sensor.value)
        table.add_row(Text(name, style="bold"), measured, _number(state.value), _band(state), state.unit)
    for name, known in now.inputs.items():
        table.add_row(Text(name, style="dim"), _number(known.value), Text("input", style="dim"), Text(), known.unit)
    style = "green" if now.quality == "good" else "yellow" if now.quality.startswith("uncertain") else "red"
    nis = "-" if now.nis is None else f"{now.nis:.2f}"
    title = Text.assemble((now.twin, "bold"), f"  {now.age_s:.1f} s old  ", (now.quality, style), f"  NIS {nis}")
    return Panel(table, title=title, title_align="left", border_style=style)


def _footer(scene: Scene) -> RenderableType:
    line = Text(f"{scene.elapsed_s:5.0f} s  {scene.note}")
    if scene.stats is not None:
        p99 = scene.stats.latency_ms.p99
        line.append(f"   {scene.stats.readings_applied} readings applied", style="bold")
        line.append("" if p99 is None else f"   p99 {p99:.0f} ms")
    line.append(f"   backlog {scene.backlog}", style="yellow" if scene.backlog > 100 else "")
    line.append(f"   restarts {scene.restarts}" if scene.restarts else "")
    rows: list[RenderableType] = [line]
    rows.extend(_order(order) for order in list(scene.orders)[-3:])
    return Panel(Group(*rows), title="loop", title_align="left")


def _order(order: Command) -> Text:
    style = {"verified": "bold green", "rejected": "bold red"}.get(order.state, "yellow")
    story = " → ".join(step.what for step in order.steps) or order.state
    why = f"  ({order.reason})" if order.reason and order.state != "verified" else ""
    return Text.assemble(f"{order.twin} {order.actuator} = {order.value:g} {order.unit}: ", (story, style), why)


def _band(state: StateNow) -> Text:
    return Text(f"± {_digits(BAND * state.sigma)}", style="cyan")


def _number(value: float | None) -> Text:
    return Text("bad", style="red") if value is None else Text(_digits(value))


def _digits(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 1000 else f"{value:.5g}"
