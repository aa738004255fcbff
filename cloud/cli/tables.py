"""What people see: the API's answers as tables and lines."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime

from rich.console import Group, RenderableType
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
    StepReply,
    TwinReply,
    TwinsReply,
)

STYLES = {"good": "green", "uncertain": "yellow", "bad": "red"}
DAY_NS = 86_400 * 10**9
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


def declared(twin: TwinReply) -> list[RenderableType]:
    """A twin as its author described it."""
    title = Text(f"{twin.twin}: {twin.type} {twin.version}, mode {twin.mode}", "bold")
    states = _table("state", "unit")
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
    return [title, *(table for table in (states, channels, actuators, parameters) if table.row_count)]


def now(found: NowReply) -> RenderableType:
    """Estimate beside measurement, where a sensor reads that very state."""
    nis = "" if found.nis is None else f", NIS {found.nis:.2f}"
    title = Text.assemble((f"{found.twin}  ", "bold"), quality(found.quality), f"  {_age(found.age_s)} old{nis}")
    table = _table("", "estimate", "± 2 sigma", "unit", "measured", "age", "quality", "")
    channels, seen = found.sensors | found.inputs, set()
    for name, state in found.states.items():
        sensor = next((each for each, channel in channels.items() if channel.state == name), None)
        seen.add(sensor)
        estimate, band = plus_minus(state.value, 2 * state.sigma)
        shown = _measured(None if sensor is None else channels[sensor])
        table.add_row(name, estimate, band, state.unit, *shown, "" if sensor in (None, name) else f"by {sensor}")
    for name, channel in channels.items():
        if name not in seen:
            table.add_row(name, "", "", channel.unit, *_measured(channel))
    return Group(title, table)


def history(found: HistoryReply) -> RenderableType:
    return Group(Text(found.twin, "bold"), _bands(found.time, found.states))


def forecast(found: NextReply) -> RenderableType:
    return Group(Text(f"{found.twin}, inputs held", "bold"), _bands(found.time, found.states))


def plus_minus(value: float, band: float) -> tuple[str, str]:
    """A value with as many digits as its uncertainty has to say something about (two of the band's)."""
    digits = 1 - math.floor(math.log10(band)) if 0 < band < math.inf else 4
    if not -3 <= digits <= 6:
        return f"{value:.4g}", f"{band:.2g}"
    digits = max(digits, 0)
    # adding zero turns a rounded -0.0 into 0.0
    return f"{round(value, digits) + 0.0:.{digits}f}", f"{band:.{digits}f}"


def step(found: StepReply) -> Text:
    """One line of a setpoint's story."""
    named = {"value": "wrote", "readback": "read back"}
    parts = [
        f"{word} {found.detail[name]} {found.detail['unit']}" for name, word in named.items() if name in found.detail
    ]
    detail, why = ", ".join(parts), found.detail.get("why", "")
    reason = "" if found.reason == found.what else f"  {found.reason}"
    return Text.assemble((f"{_clock(found.at)}  ", "dim"), state(found.what), f"{reason}  {detail}{why}".rstrip())


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


def _bands(times: Sequence[int], states: dict[str, Band]) -> Table:
    table = _table("time", *(f"{name} [{band.unit}]" if band.unit else name for name, band in states.items()))
    table.columns[0].no_wrap = True
    short = bool(times) and times[-1] - times[0] < DAY_NS
    stride = max(-(-len(times) // ROWS), 1)
    for row in range(0, len(times), stride):
        cells = (" ± ".join(plus_minus(band.mean[row], 2 * band.sigma[row])) for band in states.values())
        table.add_row(_clock(times[row])[11 * short :], *cells)
    return table


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


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(Text(column))
    return table
