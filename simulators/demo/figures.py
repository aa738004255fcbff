"""Estimates against the truth, and readings counted twice by parties that do not know each other. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from simulators.demo.cast import Role, StateRole
from simulators.demo.replies import History, Trace

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Truth:
    """What really happened to one plant: ``time`` (T,) ns UTC, and each true state (T,)."""

    time: Ints
    states: Mapping[str, Floats]

    def at(self, state: str, time: Ints, period: float | None) -> Floats:
        """A state at other times, by straight lines between the logged ones; ``period`` unwraps an angle."""
        values = self.states[state]
        if period is not None:
            values = np.unwrap(values, period=period)
        return np.interp(_seconds(time, self.time[0]), _seconds(self.time, self.time[0]), values)


@dataclass(frozen=True, slots=True)
class StateFigures:
    """Errors of one state over a span. ``nees`` is the mean of (error / sigma)^2 of this state alone."""

    rmse_raw: float | None
    """None where no sensor measures the state."""
    rmse_twin: float
    nees: float


@dataclass(frozen=True, slots=True)
class Ledger:
    """Readings counted at both ends. ``committed`` is what the edges' own outboxes say they committed, ``dropped``
    what their quota took; ``applied`` is what the cloud counted, ``stored`` the distinct readings in its history."""

    committed: int
    dropped: int
    applied: int
    stored: int
    rows: int
    """Readings in the history, distinct or not."""

    @property
    def lost(self) -> int:
        """Committed at an edge, not dropped by quota, and missing in the cloud."""
        return max(0, self.committed - self.dropped - min(self.applied, self.stored))

    @property
    def duplicates(self) -> int:
        """In the cloud more often than once, or more than were ever committed."""
        return max(self.rows - self.stored, self.applied - (self.committed - self.dropped), 0)


def read_truth(lines: Iterable[str]) -> dict[str, Truth]:
    """The truth log, by plant. A last line cut short by a kill is left out."""
    times: dict[str, list[int]] = {}
    states: dict[str, list[dict[str, float]]] = {}
    for line in lines:
        if not line.endswith("\n"):
            break
        row = json.loads(line)
        times.setdefault(row["plant"], []).append(int(row["t_ns"]))
        states.setdefault(row["plant"], []).append(row["states"])
    return {
        plant: Truth(
            np.array(times[plant], dtype=np.int64),
            {name: np.array([row[name] for row in rows], dtype=np.float64) for name in rows[0]},
        )
        for plant, rows in states.items()
    }


def state_figures(history: History, truth: Truth, role: Role) -> dict[str, StateFigures]:
    """Errors of every state of one twin that has a true value, within the span that the truth covers."""
    time = np.array(history.time, dtype=np.int64)
    inside = (time >= truth.time[0]) & (time <= truth.time[-1])
    if not inside.any():
        return {}
    figures = {}
    for name, state in role.states.items():
        band = history.states[name]
        error = _error(np.array(band.mean)[inside], truth, state, time[inside])
        sigma = np.array(band.sigma)[inside]
        trace = history.readings.get(state.sensor) if state.sensor else None
        raw = None if trace is None else _raw_rmse(trace, truth, state)
        figures[name] = StateFigures(raw, _rms(error), float(np.mean((error / sigma) ** 2)))
    return figures


def _raw_rmse(trace: Trace, truth: Truth, state: StateRole) -> float | None:
    rows = [(time, value) for time, value in zip(trace.time, trace.value, strict=True) if value is not None]
    time = np.array([row[0] for row in rows], dtype=np.int64)
    inside = (time >= truth.time[0]) & (time <= truth.time[-1])
    if not inside.any():
        return None
    return _rms(_error(np.array([row[1] for row in rows])[inside], truth, state, time[inside]))


def _error(values: Floats, truth: Truth, state: StateRole, time: Ints) -> Floats:
    """Value minus truth (T,); an angle's error is the short way round."""
    error = values - (truth.at(state.truth, time, state.period) * state.scale + state.offset)
    if state.period is None:
        return error
    return (error + state.period / 2) % state.period - state.period / 2


def _seconds(time: Ints, origin: np.int64) -> Floats:
    return (time - origin).astype(np.float64) * 1e-9


def _rms(error: Floats) -> float:
    return float(np.sqrt(np.mean(error**2)))
