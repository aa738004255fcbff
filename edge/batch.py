"""Samples of all devices to columns of readings: which time counts, which value counts, and what tells rows apart."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from edge.drivers.base import Samples
from wire.messages import MAX_RECORD_READINGS, ReadingsBody
from wire.quality import FIRST_BAD, Quality

Bounds = tuple[float, float] | None
_REMEMBERED = 64
"""Stamps of one point that a late repetition is compared with."""


@dataclass(slots=True)
class Rows:
    """Columns under way from samples to a `ReadingsBody`; ``value`` is one per row here, also where bad."""

    point: list[int] = field(default_factory=list)
    time: list[int] = field(default_factory=list)
    lag: list[int] = field(default_factory=list)
    ordinal: list[int] = field(default_factory=list)
    value: list[float] = field(default_factory=list)
    quality: list[int] = field(default_factory=list)
    side: dict[int, int | str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.point)


class Batch:
    """Gathers samples until somebody takes them; whoever adds bounds it by looking at ``len``.

    ``ranges`` holds the declared range of every point, in its own unit.
    """

    def __init__(self, schema_hash: str, ranges: Sequence[Bounds], max_skew_ns: int) -> None:
        self.repeated = 0
        self._schema_hash = schema_hash
        self._ranges = ranges
        self._checked = any(bounds is not None for bounds in ranges)
        self._max_skew_ns = max_skew_ns
        self._resumed: dict[int, int] = {}
        self._rows = Rows()
        self._latest_unstamped = 0
        self._latest_stamped = 0
        self._unstamped: list[int] = []
        self._stamps: dict[int, OrderedDict[int, int]] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def resume(self, points: Sequence[int], newest: Callable[[int], int]) -> None:
        """A source begins again: its first reading of each point may be the newest one of before."""
        self._resumed.update({point: newest(point) for point in points})

    def add(self, offset: int, samples: Samples, received: int) -> None:
        """Append a device's samples; ``offset`` is the index of its first point, ``received`` the edge's time in ns."""
        rows, first = self._rows, len(self._rows)
        if not any(samples.time) and not samples.side:
            self._add_unstamped(offset, samples, received)
        else:
            for row in range(len(samples.point)):
                self._add_stamped(offset, samples, row, received)
        if not math.isfinite(sum(samples.value)):
            for row in range(first, len(rows)):
                if not math.isfinite(rows.value[row]) and rows.quality[row] < FIRST_BAD:
                    rows.quality[row] = Quality.BAD_NOT_FINITE
        if self._checked:
            self._check_ranges(first)

    def take(self, most: int = MAX_RECORD_READINGS) -> ReadingsBody | None:
        """The oldest rows as one record body, None if there are none."""
        if not self._rows.point:
            return None
        rows, self._rows = _split(self._rows, most)
        base = min(rows.time)
        keep = [row for row, code in enumerate(rows.quality) if code < FIRST_BAD and row not in rows.side]
        whole = len(keep) == len(rows)
        return ReadingsBody(
            schema_hash=self._schema_hash,
            base=base,
            point=rows.point,
            dt=[time - base for time in rows.time],
            value=rows.value if whole else [rows.value[row] for row in keep],
            quality=rows.quality if any(rows.quality) else None,
            ordinal=rows.ordinal if any(rows.ordinal) else None,
            lag=rows.lag if any(rows.lag) else None,
            side=[(row, value) for row, value in sorted(rows.side.items()) if rows.quality[row] < FIRST_BAD],
        )

    def _add_unstamped(self, offset: int, samples: Samples, received: int) -> None:
        """The common case of a polled device: every row has the edge's time."""
        rows, count = self._rows, len(samples.point)
        points = [offset + point for point in samples.point]
        if received > max(self._latest_unstamped, self._latest_stamped) and len(set(points)) == count:
            ordinals = [0] * count
            self._unstamped = points
        else:
            ordinals = [self._ordinal(point, received) for point in points]
            self._unstamped = self._unstamped if received == self._latest_unstamped else []
        self._latest_unstamped = received
        rows.point += points
        rows.time += [received] * count
        rows.lag += [0] * count
        rows.ordinal += ordinals
        rows.value += samples.value
        rows.quality += samples.quality

    def _add_stamped(self, offset: int, samples: Samples, row: int, received: int) -> None:
        rows, point, stamp = self._rows, offset + samples.point[row], samples.time[row]
        quality = samples.quality[row]
        if stamp and self._resumed.pop(point, None) == stamp:
            self.repeated += 1
            return
        time = stamp or received
        if stamp and abs(received - stamp) > self._max_skew_ns:
            time = received
            quality = quality if quality >= Quality.UNCERTAIN else Quality.UNCERTAIN_CLOCK
        self._latest_stamped = max(self._latest_stamped, time)
        if row in samples.side:
            rows.side[len(rows)] = samples.side[row]
        rows.point.append(point)
        rows.time.append(time)
        rows.lag.append(received - time)
        rows.ordinal.append(self._ordinal(point, time))
        rows.value.append(samples.value[row])
        rows.quality.append(quality)

    def _ordinal(self, point: int, time: int) -> int:
        """0 for a stamp not seen lately, else the next number; the memory is bounded, old stamps are forgotten."""
        stamps = self._stamps.setdefault(point, OrderedDict())
        if time == self._latest_unstamped and point in self._unstamped:
            stamps.setdefault(time, 0)
        ordinal = stamps.get(time, -1) + 1
        stamps[time] = ordinal
        stamps.move_to_end(time)
        if len(stamps) > _REMEMBERED:
            stamps.popitem(last=False)
        return ordinal

    def _check_ranges(self, first: int) -> None:
        rows, ranges = self._rows, self._ranges
        for row in range(first, len(rows)):
            bounds = ranges[rows.point[row]]
            if bounds and rows.quality[row] < FIRST_BAD and row not in rows.side:
                low, high = bounds
                if not low <= rows.value[row] <= high:
                    rows.quality[row] = Quality.BAD_RANGE


def _split(rows: Rows, most: int) -> tuple[Rows, Rows]:
    """The first ``most`` rows and the others."""
    if len(rows) <= most:
        return rows, Rows()
    side = rows.side
    parts = []
    for low, high in ((0, most), (most, len(rows))):
        parts.append(
            Rows(
                rows.point[low:high],
                rows.time[low:high],
                rows.lag[low:high],
                rows.ordinal[low:high],
                rows.value[low:high],
                rows.quality[low:high],
                {row - low: value for row, value in side.items() if low <= row < high},
            )
        )
    return parts[0], parts[1]
