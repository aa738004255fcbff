"""From filter states to what people are shown: predicted to a common time, inside the physical bounds, with health."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from cloud.estimation.algebra import diagonal
from cloud.estimation.cohort import Cohort, Tick
from cloud.estimation.constraints import truncate
from cloud.estimation.ring import LEAST, spread
from cloud.history.base import EstimateRows
from cloud.twins.model import Floats, Ints, TwinType

WINDOW = 200
"""Scored samples that the mean NIS is taken over, within the last 256 events."""


def published(kind: TwinType, x: Floats, P: Floats) -> tuple[Floats, Floats]:
    """Mean and sigma (R, n) inside the states' ranges."""
    low = np.array([item.low for item in kind.states], dtype=np.float64)
    high = np.array([item.high for item in kind.states], dtype=np.float64)
    return truncate(x, np.sqrt(np.maximum(diagonal(P), 0.0)), low, high)


def at_ticks(cohort: Cohort, ticks: list[Tick]) -> EstimateRows | None:
    """Rows at the tick boundaries that a step crossed, the newest revision of each, in order of time."""
    if not ticks:
        return None
    every = Tick.join(ticks)
    order = np.lexsort((every.revision, every.row, every.tick))
    row, tick = every.row[order], every.tick[order]
    last = np.ones(len(order), np.bool_)
    last[:-1] = (row[1:] != row[:-1]) | (tick[1:] != tick[:-1])
    one = every.take(order[last])
    mean, sigma = ahead(cohort, one.row, one.x, one.P, one.u, one.since, one.tick)
    names = [str(cohort.names[i]) for i in one.row]
    states = tuple(item.name for item in cohort.kind.states)
    return EstimateRows(cohort.kind.hash, states, names, one.tick, mean, sigma, one.revision)


def ahead(
    cohort: Cohort, rows: Ints, x: Floats, P: Floats, u: Floats, since: Ints, until: Ints
) -> tuple[Floats, Floats]:
    """Published mean and sigma at ``until`` of given states; the cohort's own are not touched."""
    with np.errstate(all="ignore"):
        x, P = cohort.filter.carry(rows, x, P, u, since, until)
        return published(cohort.kind, x, P)


def forecast(cohort: Cohort, row: int, times: Ints) -> tuple[Floats, Floats]:
    """Published mean and sigma (T, n) of one twin at the given times, its inputs held."""
    rows = np.full(len(times), row, np.int64)
    state = cohort.state.take(rows)
    started = state.started & (times > state.time)
    since = np.where(started, state.time, times)
    return ahead(cohort, rows, state.x, state.P, state.u, since, times)


class Health(NamedTuple):
    """Mean NIS (NaN: none scored) and how many samples it is over."""

    nis: Floats
    samples: Ints


def health(cohort: Cohort, rows: Ints) -> Health:
    """Of each row's last scored samples."""
    ring = cohort.ring
    back = np.minimum(ring.next[rows] - ring.first[rows], LEAST)
    which, number = spread(ring.next[rows] - back, back)
    nis = ring.nis[rows[which], number % ring.capacity]
    scored = np.flatnonzero(np.isfinite(nis))
    which, nis = which[scored], nis[scored]
    total = np.bincount(which, minlength=len(rows))
    age = np.cumsum(total)[which] - np.arange(len(which))  # 1 for a row's newest scored sample
    which, nis = which[age <= WINDOW], nis[age <= WINDOW]
    count = np.bincount(which, minlength=len(rows))
    with np.errstate(invalid="ignore"):
        return Health(np.bincount(which, weights=nis, minlength=len(rows)) / count, count)
