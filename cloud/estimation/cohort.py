"""All twins of one type, in stacked arrays, with their events in order."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cloud.estimation.linear import Linear
from cloud.estimation.nonlinear import Nonlinear
from cloud.estimation.prediction import Model
from cloud.estimation.ring import NEVER, STRIDE, Ring, Slots, spread
from cloud.estimation.state import Bools, State
from cloud.estimation.waves import Filter, Happened
from cloud.twins.model import Floats, Ints, TwinType

TAKEN, LATE, DUPLICATE = 0, 1, 2
_PIECE = 512
"""Events of one twin worked on at once; more are done in pieces, which bounds the ring."""


class Tick(NamedTuple):
    """States from which tick boundaries were crossed; ``revision`` counts the events they rest on."""

    row: Ints
    tick: Ints
    revision: Ints
    since: Ints
    x: Floats
    P: Floats
    u: Floats

    @classmethod
    def join(cls, ticks: list[Tick]) -> Tick:
        """All of them, one after the other."""
        columns: list[tuple[npt.NDArray[Any], ...]] = [tuple(tick) for tick in ticks]
        return cls(*(np.concatenate(parts) for parts in zip(*columns, strict=True)))

    def take(self, index: Ints) -> Tick:
        """The chosen rows."""
        columns: tuple[npt.NDArray[Any], ...] = tuple(self)
        return Tick(*(column[index] for column in columns))


class Reset(NamedTuple):
    """One recovery; ``sensor`` -1: the whole state was not finite."""

    row: int
    time: int
    sensor: int
    innovation: float


@dataclass
class Produced:
    """What a step leaves behind for publishing."""

    ticks: list[Tick] = field(default_factory=list)
    resets: list[Reset] = field(default_factory=list)


class _Work(NamedTuple):
    """Events to apply: rows by falling count; row i's are ``offset[i] .. + many[i]`` of ``events``, numbered from
    ``base[i]``, and all before number ``changed[i]`` were there already. ``rewound`` rows start from an anchor."""

    rows: Ints
    base: Ints
    offset: Ints
    many: Ints
    changed: Ints
    rewound: Bools
    events: Slots


class Cohort:
    """N rows, some of them free. Rows are given out by `enrol` and stay where they are."""

    def __init__(self, kind: TwinType) -> None:
        self.kind = kind
        self.model: Model = Linear(kind) if kind.linear else Nonlinear(kind)
        self.filter = Filter(kind, self.model)
        self.names: list[str | None] = []
        self.state = State.prior(kind, 0)
        self.ring = Ring(kind, 0)
        self.measured: Floats = np.zeros((0, len(kind.channels)))
        self.measured_at: Ints = np.zeros((0, len(kind.channels)), np.int64)

    def enrol(self, name: str, parameters: Floats) -> int:
        """Give a twin a row at the prior."""
        if None in self.names:
            row = self.names.index(None)
        else:
            row = len(self.names)
            self.names.append(None)
            if row >= len(self.state.time):
                self._grow(max(4, 2 * row))
        self.names[row] = name
        self.state.put(slice(row, row + 1), State.prior(self.kind, 1))
        self.ring.clear(row)
        self.measured[row], self.measured_at[row] = np.nan, -1
        self.model.enrol(row, parameters)
        return row

    def leave(self, row: int) -> None:
        """Free a row."""
        self.names[row] = None

    def _grow(self, rows: int) -> None:
        old = len(self.state.time)
        state = State.prior(self.kind, rows)
        state.put(slice(old), self.state)
        shape = rows, len(self.kind.channels)
        measured, measured_at = np.full(shape, np.nan), np.full(shape, -1, np.int64)
        measured[:old], measured_at[:old] = self.measured, self.measured_at
        self.state, self.measured, self.measured_at = state, measured, measured_at
        self.ring.grow(rows)

    def newest(self, rows: Ints) -> Ints:
        """Time of each row's newest event."""
        return np.where(self.ring.next[rows] > 0, self.state.time[rows], NEVER)

    def step(self, rows: Ints, events: Slots, produced: Produced) -> Ints:
        """Apply events in arrival order, (E,) rows; returns TAKEN, LATE or DUPLICATE for each."""
        outcome = np.full(len(rows), LATE, np.int64)
        order = np.argsort(rows, kind="stable")
        _, start, count = np.unique(rows[order], return_index=True, return_counts=True)
        piece = np.empty(len(rows), np.int64)
        piece[order] = (np.arange(len(rows)) - np.repeat(start, count)) // _PIECE
        for number in range(int(piece.max(initial=-1)) + 1):
            at = np.flatnonzero(piece == number)
            at = at[~self._late(rows[at], events.time[at])]
            if at.size:
                outcome[at] = self._step(rows[at], events.take(at), produced)
        return outcome

    def _late(self, rows: Ints, time: Ints) -> Bools:
        """Behind the newest event that had arrived before it by more than the horizon."""
        rank = np.empty(len(time), np.int64)
        rank[np.argsort(time, kind="stable")] = np.arange(len(time))
        order = np.argsort(rows, kind="stable")
        offset = rows[order] * len(time)
        leader = np.maximum.accumulate(offset + rank[order]) - offset
        newest = np.empty(len(time), np.int64)
        newest[order] = np.sort(time)[leader]
        newest = np.maximum(newest, self.newest(rows))
        return (time < newest - self.kind.horizon_ns) | (time <= self.ring.floor[rows])

    def _step(self, rows: Ints, events: Slots, produced: Produced) -> Ints:
        order = np.lexsort((events.origin, events.channel, events.time, rows))
        row, event = rows[order], events.take(order)
        keep = ~_repeats(row, event)
        known, head = np.unique(row, return_index=True)
        behind = ~self.ring.follows(known, event.take(head))
        if behind.any():
            keep &= ~self._known(row, event, known[behind])
        outcome = np.full(len(rows), DUPLICATE, np.int64)
        outcome[order[keep]] = TAKEN
        row, event = row[keep], event.take(keep)
        if len(row):
            self._remember(row, event)
            work = self._plan(row, event)
            self._run(work, produced)
            self.ring.prune(work.rows, self.state.time[work.rows])
        return outcome

    def _known(self, row: Ints, event: Slots, behind: Ints) -> Bools:
        """True for events that the ring holds already."""
        at = np.flatnonzero(np.isin(row, behind))
        number = self.ring.place(row[at], event.take(at))
        there = self.ring.read(row[at], number)
        same = (number < self.ring.next[row[at]]) & (there.time == event.time[at])
        same &= (there.channel == event.channel[at]) & (there.origin == event.origin[at])
        known = np.zeros(len(row), np.bool_)
        known[at] = same
        return known

    def _plan(self, row: Ints, event: Slots) -> _Work:
        """Merge new events (sorted, none known) with those they come before, and write all to the ring in order."""
        ring = self.ring
        rows, head, count = np.unique(row, return_index=True, return_counts=True)
        changed = ring.next[rows].copy()
        rewound = ~ring.follows(rows, event.take(head))
        behind = np.flatnonzero(rewound)
        changed[behind] = ring.place(rows[behind], event.take(head[behind]))
        base = np.where(rewound, changed // STRIDE * STRIDE, ring.next[rows])
        ring.reserve(rows, count)
        which, number = spread(base[behind], ring.next[rows[behind]] - base[behind])
        if len(number):
            again = rows[behind][which]
            row = np.concatenate([row, again])
            event = Slots.join([event, ring.read(again, number)])
            order = np.lexsort((event.origin, event.channel, event.time, row))
            row, event = row[order], event.take(order)
            rows, head, count = np.unique(row, return_index=True, return_counts=True)
        ring.write(row, np.repeat(base, count) + np.arange(len(row)) - np.repeat(head, count), event)
        ring.next[rows] = base + count
        longest = np.argsort(-count, kind="stable")
        return _Work(
            rows[longest], base[longest], head[longest], count[longest], changed[longest], rewound[longest], event
        )

    def _run(self, work: _Work, produced: Produced) -> None:
        """Apply wave after wave to copies of the rows, from the anchors where something came late."""
        rows, ring = work.rows, self.ring
        state = self.state.take(rows)
        back = np.flatnonzero(work.rewound)
        state.put(back, ring.anchor(rows[back], work.base[back]))
        with np.errstate(all="ignore"):
            for wave in range(int(work.many[0])):
                active = int(np.count_nonzero(work.many > wave))
                event = work.events.take(work.offset[:active] + wave)
                view, number = state.take(slice(active)), work.base[:active] + wave
                self._cross(rows[:active], view, event.time, number, number >= work.changed[:active], produced)
                happened = self.filter.apply(rows[:active], view, event)
                ring.nis[rows[:active], number % ring.capacity] = happened.nis
                due = np.flatnonzero((number + 1) % STRIDE == 0)
                if due.size:
                    ring.keep(rows[due], number[due] + 1, view.take(due))
                _note(rows, event, happened, len(self.kind.inputs), produced)
        self.state.put(rows, state)

    def _cross(self, rows: Ints, state: State, until: Ints, number: Ints, new: Bools, produced: Produced) -> None:
        """Set aside the states whose first tick boundary lies before the event at hand."""
        tick = -(-state.time // self.kind.tick_ns) * self.kind.tick_ns
        at = np.flatnonzero(state.started & new & (until > tick))
        if at.size:
            produced.ticks.append(
                Tick(rows[at], tick[at], number[at], state.time[at], state.x[at], state.P[at], state.u[at])
            )

    def _remember(self, row: Ints, event: Slots) -> None:
        """Newest value of every channel, events given in order."""
        order = np.lexsort((event.origin, event.time, event.channel, row))
        row, event = row[order], event.take(order)
        last = np.ones(len(row), np.bool_)
        last[:-1] = (row[1:] != row[:-1]) | (event.channel[1:] != event.channel[:-1])
        row, event = row[last], event.take(last)
        newer = event.time >= self.measured_at[row, event.channel]
        place = row[newer], event.channel[newer]
        self.measured[place], self.measured_at[place] = event.value[newer], event.time[newer]


def _note(rows: Ints, event: Slots, happened: Happened, inputs: int, produced: Produced) -> None:
    at = np.flatnonzero(happened.reset | happened.diverged)
    sensor = np.where(happened.diverged, -1, event.channel.astype(np.int64) - inputs)
    produced.resets.extend(
        Reset(int(rows[i]), int(event.time[i]), int(sensor[i]), float(happened.innovation[i])) for i in at
    )


def _repeats(row: Ints, event: Slots) -> Bools:
    """True for a sorted event that equals the one before it."""
    same = np.zeros(len(row), np.bool_)
    same[1:] = (row[1:] == row[:-1]) & (event.time[1:] == event.time[:-1])
    same[1:] &= (event.channel[1:] == event.channel[:-1]) & (event.origin[1:] == event.origin[:-1])
    return same
