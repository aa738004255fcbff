"""The figures of one run, gathered from parties that do not know each other."""

from __future__ import annotations

import asyncio
import time
from dataclasses import asdict, dataclass

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from simulators.demo import audit, figures, stage, story
from simulators.demo.cast import ROLES
from simulators.demo.client import Client
from simulators.demo.figures import Ledger, StateFigures, Truth
from wire.runtime.outbox import Outbox

APPLIED_WITHIN_S = 20.0


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds from a reading's stamp at the edge to its committed estimate."""

    p50: float | None
    p99: float | None


@dataclass(frozen=True, slots=True)
class TwinFigures:
    """Mean NIS over the cloud's window with its 99.9 % band, and errors by state."""

    nis: float | None
    nis_band: tuple[float, float | None]
    states: dict[str, StateFigures]


@dataclass(frozen=True, slots=True)
class Result:
    """What ``--json`` prints."""

    readings_committed: int
    readings_applied: int
    lost: int
    duplicates: int
    setpoints: dict[str, int]
    latency_ms: Latency
    restarts: int
    outcomes: dict[str, int]
    twins: dict[str, TwinFigures]

    def as_dict(self) -> dict[str, object]:
        """Plain values, as JSON wants them."""
        return asdict(self)


async def collect(scene: stage.Stage, client: Client, half_ns: int, restarts: int) -> Result:
    """Count at both ends and compare the second half of the run with the truth; the edges have stopped."""
    totals = [await asyncio.to_thread(Outbox.inspect, scene.outbox(name)) for name in stage.EDGES]
    committed = sum(each.committed_readings for each in totals)
    dropped = sum(each.dropped_readings for each in totals)
    stats = await story.applied(client, committed - dropped, APPLIED_WITHIN_S)
    stored = await asyncio.to_thread(audit.count_stored, scene.history)
    ledger = Ledger(committed, dropped, stats.readings_applied, stored.distinct, stored.rows)
    truth = await asyncio.to_thread(_truth, scene)
    twins = {}
    for role in ROLES:
        history = await client.history(role.twin, half_ns, time.time_ns())
        health = stats.twins[role.twin]
        states = figures.state_figures(history, truth[role.plant], role)
        twins[role.twin] = TwinFigures(health.nis, health.band, states)
    return Result(
        readings_committed=committed,
        readings_applied=stats.readings_applied,
        lost=ledger.lost,
        duplicates=ledger.duplicates,
        setpoints=stats.setpoints,
        latency_ms=Latency(stats.latency_ms.p50, stats.latency_ms.p99),
        restarts=restarts,
        outcomes=stats.outcomes,
        twins=twins,
    )


def draw(result: Result) -> RenderableType:
    """The same for people."""
    table = Table(
        "twin", "state", "raw RMSE", "twin RMSE", "NEES", "NIS", title="second half of the run, against truth"
    )
    for name, twin in result.twins.items():
        nis = "-" if twin.nis is None else f"{twin.nis:.2f}"
        for state, figure in twin.states.items():
            raw = "not measured" if figure.rmse_raw is None else f"{figure.rmse_raw:.4f}"
            table.add_row(name, state, raw, f"{figure.rmse_twin:.4f}", f"{figure.nees:.2f}", nis)
    setpoints = ", ".join(f"{count} {state}" for state, count in sorted(result.setpoints.items())) or "none"
    p50, p99 = result.latency_ms.p50, result.latency_ms.p99
    latency = "-" if p50 is None or p99 is None else f"p50 {p50:.0f} ms, p99 {p99:.0f} ms"
    line = (
        f"{result.readings_committed} readings committed at the edges, {result.readings_applied} applied, "
        f"{result.lost} lost, {result.duplicates} duplicates. Setpoints: {setpoints}. Latency: {latency}."
    )
    return Group(table, Text(line))


def _truth(scene: stage.Stage) -> dict[str, Truth]:
    with scene.truth.open(encoding="utf-8") as lines:
        return figures.read_truth(lines)
