"""One event for each of many twins at once: the filter proper.

Twins are sorted by how many events they have, so that the j-th events of all of them, wave j, are a prefix of the
stacked state. No row's arithmetic sees another row.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from cloud.estimation.algebra import diagonal
from cloud.estimation.consistency import chi_square
from cloud.estimation.prediction import Model
from cloud.estimation.ring import Slots
from cloud.estimation.state import Bools, State
from cloud.estimation.update import update
from cloud.twins.model import Floats, Ints, TwinType


class Happened(NamedTuple):
    """What one event did to each row: its NIS (NaN: not scored), and where the filter had to be opened again.

    ``diverged`` rows were not finite any more and start again from the prior.
    """

    nis: Floats
    reset: Bools
    innovation: Floats
    diverged: Bools


class Filter:
    """Applies events to stacked states, in place."""

    def __init__(self, kind: TwinType, model: Model) -> None:
        self._model = model
        self._inputs = len(kind.inputs)
        self._resolution = kind.resolution_ns
        self._prior = State.prior(kind, 1)
        sensors = kind.sensors
        self._variance = np.array([item.noise**2 + item.resolution**2 / 12.0 for item in sensors])
        self._gate = np.array([chi_square(item.gate, 1) for item in sensors])
        starts = [[state.initial_from == item.name for state in kind.states] for item in sensors]
        self._starts: Bools = np.array(starts, dtype=np.bool_).reshape(len(sensors), len(kind.states))

    def carry(self, rows: Ints, x: Floats, P: Floats, u: Floats, since: Ints, until: Ints) -> tuple[Floats, Floats]:
        """Mean and covariance at ``until``; times are snapped to the type's resolution, so equal ticks move nothing."""
        ticks = until // self._resolution - since // self._resolution
        go = np.flatnonzero(ticks > 0)
        if go.size == len(ticks):
            return self._model.predict(rows, x, P, u, ticks)
        if go.size:
            x, P = x.copy(), P.copy()
            x[go], P[go] = self._model.predict(rows[go], x[go], P[go], u[go], ticks[go])
        return x, P

    def apply(self, rows: Ints, state: State, event: Slots) -> Happened:
        """Take one event a row: predict to it, then hold the input or fuse the sample."""
        live = np.flatnonzero(state.started)
        state.x[live], state.P[live] = self.carry(
            rows[live], state.x[live], state.P[live], state.u[live], state.time[live], event.time[live]
        )
        state.time[:] = event.time
        sensor = event.channel.astype(np.int64) - self._inputs
        held = np.flatnonzero(sensor < 0)
        state.u[held, event.channel[held]] = event.value[held]
        no = np.zeros(len(rows), np.bool_)
        happened = Happened(np.full(len(rows), np.nan), no, np.zeros(len(rows)), no.copy())
        measured = np.flatnonzero(sensor >= 0)
        if measured.size:
            state.started[measured] = True
            starts = ~state.seen[measured, sensor[measured]] & self._starts[sensor[measured]].any(axis=1)
            self._begin(state, measured[starts], sensor[measured[starts]], event.value[measured[starts]])
            self._fuse(rows, state, event, sensor, measured[~starts], happened)
        self._restart(state, happened)
        return happened

    def _begin(self, state: State, at: Ints, sensor: Ints, value: Floats) -> None:
        """The first sample of a sensor is the initial value of the states that name it, and is not fused again."""
        state.seen[at, sensor] = True
        row, component = np.nonzero(self._starts[sensor])
        state.x[at[row], component] = value[row]
        state.P[at[row], component, :] = 0.0
        state.P[at[row], :, component] = 0.0
        state.P[at[row], component, component] = self._prior.P[0, component, component]

    def _fuse(self, rows: Ints, state: State, event: Slots, sensor: Ints, at: Ints, happened: Happened) -> None:
        if not at.size:
            return
        which = sensor[at]
        x, P = state.x[at], state.P[at]
        expected, gradient = self._model.observe(rows[at], x, state.u[at], which)
        variance = self._variance[which] * event.noise[at] ** 2
        after = update(
            x, P, event.value[at] - expected, gradient, variance, self._gate[which],
            state.streak[at, which], state.shift[at, which],
        )  # fmt: skip
        state.x[at], state.P[at] = after.x, after.P
        state.streak[at, which], state.shift[at, which] = after.streak, after.shift
        state.seen[at, which] = True
        state.nis_total[at] += after.scored.nis
        state.updates[at] += 1
        state.gated[at] += after.scored.gated
        state.resets[at] += after.scored.reset
        happened.nis[at] = after.scored.nis
        happened.reset[at] = after.scored.reset
        happened.innovation[at] = after.scored.innovation

    def _restart(self, state: State, happened: Happened) -> None:
        """Rows that are not finite, or not a covariance, begin again from the prior."""
        variance = diagonal(state.P)
        sound = np.isfinite(state.x).all(axis=1) & (np.isfinite(variance) & (variance >= 0.0)).all(axis=1)
        sound &= np.isfinite(state.nis_total)
        if sound.all():
            return
        lost = np.flatnonzero(~sound)
        state.x[lost], state.P[lost] = self._prior.x[0], self._prior.P[0]
        state.seen[lost], state.streak[lost], state.shift[lost] = False, 0, 0.0
        state.nis_total[lost] = np.where(np.isfinite(state.nis_total[lost]), state.nis_total[lost], 0.0)
        state.resets[lost] += 1
        happened.diverged[lost] = True
