"""The last events of every twin in order, and the filter's state before every eighth of them.

A twin's events are numbered from 0 in (time, channel, origin) order; event *i* lives in slot ``i mod capacity``,
and anchor *a* is the state before event ``8 a``. Kept are all events inside the horizon and at least the last 256;
a twin that sends more than 16,384 events within its horizon gets a shorter one.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cloud.estimation.state import Bools, State
from cloud.twins.model import Floats, Ints, TwinType

STRIDE = 8
LEAST = 256
MOST = 16_384
_ROWS = 64
"""Rows moved at once into a larger ring; bounds the memory that takes."""
NEVER = np.iinfo(np.int64).min


class Slots(NamedTuple):
    """Events, one a row, or one a (twin, slot)."""

    time: Ints
    channel: npt.NDArray[np.int16]
    origin: Ints
    value: Floats
    noise: Floats

    @property
    def columns(self) -> tuple[npt.NDArray[Any], ...]:
        """The arrays."""
        return tuple(self)

    def take(self, index: Any) -> Slots:
        """The chosen rows."""
        return Slots(*(column[index] for column in self.columns))

    @classmethod
    def join(cls, parts: Iterable[Slots]) -> Slots:
        """All rows, one part after the other."""
        return cls(*(np.concatenate(column) for column in zip(*(part.columns for part in parts), strict=True)))


class Ring:
    """Events ``first .. next`` (exclusive) of each of N twins, with their NIS (NaN: not scored).

    ``floor`` is the newest time that was let go: nothing at or before it can be put in its place any more.
    """

    def __init__(self, kind: TwinType, rows: int, capacity: int = 2 * LEAST) -> None:
        self._kind = kind
        self.capacity = capacity
        self.first: Ints = np.zeros(rows, np.int64)
        self.next: Ints = np.zeros(rows, np.int64)
        self.floor: Ints = np.full(rows, NEVER, np.int64)
        self.slots = _empty(rows, capacity)
        self.nis: Floats = np.full((rows, capacity), np.nan)
        self.anchors = State.prior(kind, rows, _anchors(capacity))

    def grow(self, rows: int) -> None:
        """Make room for more twins."""
        grown = Ring(self._kind, rows, self.capacity)
        old = np.arange(len(self.first))
        grown.first[old], grown.next[old], grown.floor[old] = self.first, self.next, self.floor
        grown.nis[old] = self.nis
        grown.anchors.put(slice(len(old)), self.anchors)
        for new, column in zip(grown.slots.columns, self.slots.columns, strict=True):
            new[old] = column
        self.__dict__.update(grown.__dict__)

    def clear(self, row: int) -> None:
        """Forget a twin's events."""
        self.first[row] = self.next[row] = 0
        self.floor[row] = NEVER
        self.nis[row] = np.nan
        self.anchors.put(slice(row, row + 1), State.prior(self._kind, 1, _anchors(self.capacity)))

    def reserve(self, rows: Ints, count: Ints) -> None:
        """Make sure that ``count`` more events fit behind the last of each row."""
        need = int((self.next[rows] - self.first[rows] + count).max(initial=0)) + STRIDE
        if need <= self.capacity:
            return
        wide = Ring(self._kind, len(self.first), 1 << (need - 1).bit_length())
        wide.first, wide.next, wide.floor = self.first, self.next, self.floor
        for start in range(0, len(self.first), _ROWS):
            self._move(wide, np.arange(start, min(start + _ROWS, len(self.first))))
        self.__dict__.update(wide.__dict__)

    def _move(self, wide: Ring, rows: Ints) -> None:
        first, following = self.first[rows], self.next[rows]
        which, number = spread(first, following - first)
        row = rows[which]
        wide.write(row, number, self.read(row, number), self.nis[row, number % self.capacity])
        which, anchor = spread(first // STRIDE, following // STRIDE - first // STRIDE + 1)
        wide.keep(rows[which], anchor * STRIDE, self.anchor(rows[which], anchor * STRIDE))

    def read(self, row: Ints, number: Ints) -> Slots:
        """Events by twin and number."""
        return self.slots.take((row, number % self.capacity))

    def write(self, row: Ints, number: Ints, events: Slots, nis: Floats | None = None) -> None:
        """Put events in their places."""
        place = (row, number % self.capacity)
        for column, values in zip(self.slots.columns, events.columns, strict=True):
            column[place] = values
        if nis is not None:
            self.nis[place] = nis

    def anchor(self, row: Ints, number: Ints) -> State:
        """The states before events ``number``, multiples of 8."""
        return self.anchors.take((row, number // STRIDE % _anchors(self.capacity)))

    def keep(self, row: Ints, number: Ints, state: State) -> None:
        """Remember the states before events ``number``, multiples of 8."""
        self.anchors.put((row, number // STRIDE % _anchors(self.capacity)), state)

    def follows(self, row: Ints, events: Slots) -> Bools:
        """True where the event comes after everything the twin has."""
        last = self.read(row, self.next[row] - 1)
        return np.asarray((self.next[row] == self.first[row]) | before(last, events), dtype=np.bool_)

    def place(self, row: Ints, events: Slots) -> Ints:
        """Number that each event would get among those of its twin, looking back as far as needed."""
        lead, reach = self.next[row] - self.first[row], 4 * STRIDE
        while True:
            back = np.minimum(lead, reach)
            oldest = self.read(row, self.next[row] - back)
            if reach >= int(lead.max(initial=0)) or bool((before(oldest, events) | (back == lead)).all()):
                break
            reach *= 4
        which, number = spread(self.next[row] - back, back)
        earlier = before(self.read(row[which], number), events.take(which))
        lead_in = np.bincount(which[earlier], minlength=len(row))
        return np.asarray(self.next[row] - back + lead_in, dtype=np.int64)

    def prune(self, rows: Ints, newest: Ints) -> None:
        """Let go of what lies beyond the horizon, eight events at a time."""
        while len(rows):
            ends = self.read(rows, self.first[rows] + STRIDE - 1).time
            held = self.next[rows] - self.first[rows]
            old = (held >= LEAST + STRIDE) & ((ends < newest - self._kind.horizon_ns) | (held >= MOST + STRIDE))
            rows, newest = rows[old], newest[old]
            self.floor[rows] = np.maximum(self.floor[rows], ends[old])
            self.first[rows] += STRIDE


def before(left: Slots, right: Slots) -> Bools:
    """Row by row: does the left event come first in (time, channel, origin) order?"""
    same_time, same_channel = left.time == right.time, left.channel == right.channel
    later_part = np.where(same_channel, left.origin < right.origin, left.channel < right.channel)
    return np.asarray(np.where(same_time, later_part, left.time < right.time), dtype=np.bool_)


def spread(start: Ints, count: Ints) -> tuple[Ints, Ints]:
    """For each i the numbers start[i] .. start[i] + count[i] - 1: their i, and the numbers, in two flat arrays."""
    which = np.repeat(np.arange(len(start)), count)
    return which, np.arange(len(which)) - np.repeat(np.cumsum(count) - count - start, count)


def _empty(rows: int, capacity: int) -> Slots:
    whole = [np.zeros((rows, capacity), np.int64) for _ in range(2)]
    real = [np.zeros((rows, capacity)) for _ in range(2)]
    return Slots(whole[0], np.zeros((rows, capacity), np.int16), whole[1], real[0], real[1])


def _anchors(capacity: int) -> int:
    return capacity // STRIDE + 1
