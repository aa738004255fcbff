"""What people see: the API's answers as tables and lines."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from rich.table import Table
from rich.text import Text

from cloud.api.schema import (
    Band,
    ChangeReply,
    ChannelNow,
    CommandReply,
    HistoryReply,
    NextReply,
    NowReply,
    StateNow,
    StepReply,
    TwinReply,
    TwinsReply,
)

STYLES = {"good": "green", "uncertain": "yellow", "bad": "red"}
ROWS = 24
"""Longest table of a history: every n-th row is shown; ``--json`` has them all."""


def changes(found: Sequence[ChangeReply]) -> Table:
    table = _table("", "name", "revision", "")
    for change in found:
        style = "dim" if change.action == "unchanged" else "green"
        table.add_row(change.kind, change.name, str(change.revision), Text(change.action, style))
    return table


def twins(found: TwinsReply) -> Table:
    table = _table("twin", "type", "mode", "age", "quality")
    for twin in found.twins:
        kind = f"{twin.type} {twin.version}"
        table.add_row(twin.twin, kind, twin.mode, _age(twin.age_s), quality(twin.quality))
    return table


def declared(twin: TwinReply) -> list[Table]:
    """A twin as its author described it."""
    states = _table("state", "unit", title=f"{twin.twin}: {twin.type} {twin.version}, mode {twin.mode}")
    for name, unit in twin.states.items():
        states.add_row(name, unit)
    channels = _table("channel", "unit", "noise", "point")
    for name, channel in (twin.sensors | twin.inputs).items():
        noise = "" if channel.noise is None else f"{channel.noise:.4g}"
        channels.add_row(name, channel.unit, noise, channel.point or "not bound")
    actuators = _table("actuator", "unit", "range", "safe", "lease", "write", "read")
    for name, item in twin.actuators.items():
        span = f"{item.low:g} .. {item.high:g}"
        actuators.add_row(name, item.unit, span, f"{item.safe:g}", f"{item.hold_s:g} s", item.write, item.read)
    parameters = _table("parameter", "value", "unit")
    for name, (value, unit) in twin.parameters.items():
        parameters.add_row(name, f"{value:.6g}", unit)
    return [table for table in (states, channels, actuators, parameters) if table.row_count]


def now(found: NowReply) -> Table:
    """Estimate beside measurement; a state that no sensor carries the name of is nobody's measurement."""
    nis = "" if found.nis is None else f", NIS {found.nis:.2f}"
    title = Text.assemble(f"{found.twin}  ", quality(found.quality), f"  {_age(found.age_s)} old{nis}")
    table = _table("", "estimate", "± 2 sigma", "unit", "measured", "age", "quality", title=title)
    for name, state in found.states.items():
        table.add_row(name, *_estimate(state), *_measured(found.sensors.get(name)))
    for name, channel in (found.sensors | found.inputs).items():
        if name not in found.states:
            table.add_row(name, "", "", channel.unit, *_measured(channel))
    return table


def history(found: HistoryReply) -> Table:
    return _bands(found.twin, found.time, found.states)


def forecast(found: NextReply) -> Table:
    return _bands(f"{found.twin}, inputs held", found.time, found.states)


def step(found: StepReply) -> Text:
    """One line of a setpoint's story."""
    detail = " ".join(f"{name} {found.detail[name]}" for name in ("value", "readback", "unit") if name in found.detail)
    why = found.detail.get("why", "")
    return Text.assemble(
        (f"{_clock(found.at)}  ", "dim"), state(found.what), f"  {found.reason}  {detail}{why}".rstrip()
    )


def outcome(found: CommandReply) -> Text:
    """How a setpoint ended."""
    wanted = f"{found.twin} {found.actuator} = {found.value:g} {found.unit}: "
    why = f" ({found.reason})" if found.reason else ""
    return Text.assemble(wanted, state(found.state), why, (f"  {found.id}", "dim"))


def state(name: str) -> Text:
    style = (
        "bold green" if name == "verified" else "yellow" if name in ("requested", "sent", "accepted") else "bold red"
    )
    return Text(name, "dim" if name in ("renewed", "released", "note") else style)


def quality(name: str) -> Text:
    """Never colour alone: the word stands there too."""
    return Text(name, STYLES.get(name.partition("/")[0], ""))


def _bands(title: str, times: Sequence[int], states: dict[str, Band]) -> Table:
    table = _table("time", *(f"{name} [{band.unit}]" for name, band in states.items()), title=title)
    stride = max(-(-len(times) // ROWS), 1)
    for row in range(0, len(times), stride):
        cells = (f"{band.mean[row]:.4g} ± {2 * band.sigma[row]:.2g}" for band in states.values())
        table.add_row(_clock(times[row]), *cells)
    return table


def _estimate(found: StateNow) -> tuple[str, str, str]:
    return f"{found.value:.4g}", f"{2 * found.sigma:.2g}", found.unit


def _measured(found: ChannelNow | None) -> tuple[str | Text, str, Text]:
    if found is None:
        return Text("not measured", "dim"), "", Text("")
    value = "" if found.value is None else f"{found.value:.4g}"
    return value + ("" if found.fused else " (live)"), _age(found.age_s), quality(found.quality)


def _age(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return (
        f"{seconds:.1f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )


def _clock(time_ns: int) -> str:
    return datetime.fromtimestamp(time_ns / 1e9).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _table(*columns: str, title: str | Text | None = None) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for column in columns:
        table.add_column(Text(column))
    return table
