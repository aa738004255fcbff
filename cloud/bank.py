"""The bank: every twin of this worker, grouped into cohorts of stacked arrays and stepped together.

Times are ns UTC, values SI. The bank has no clock, no files and no threads; it belongs to one task.

The posterior depends only on the set of events, never on their arrival order inside the horizon, on batch borders,
on which twins share a cohort, or on where a checkpoint was taken: bit for bit, for one version of numpy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cloud.estimation.cohort import TAKEN, Cohort, Produced, Reset
from cloud.estimation.consistency import mean_band
from cloud.estimation.journal import Journal
from cloud.estimation.publish import ahead, at_ticks, forecast, health
from cloud.estimation.ring import Slots
from cloud.estimation.update import STREAK
from cloud.history.base import EstimateRows, Event
from cloud.twins.model import Floats, Ints, Twin

Codes = npt.NDArray[np.uint8]


class Events(NamedTuple):
    """Channel samples in arrival order, one row each (E rows).

    ``channel`` indexes the type's ``channels`` (inputs first). ``origin`` tells equal stamps of one channel apart.
    ``noise`` multiplies the sensor's standard deviation: 1 for good, 3 for uncertain readings.
    """

    twin: Ints
    channel: npt.NDArray[np.int16]
    time: Ints
    origin: Ints
    value: Floats
    noise: Floats


class Outcome(IntEnum):
    """What became of one event; every event has exactly one."""

    FUSED = 0
    """In the twin's event order; the gate may still have kept a sensor value out of the state."""
    LATE = 1
    """Further behind the twin's newest event than the type's horizon: never fused."""
    DUPLICATE = 2
    """Same twin, time, channel and origin as an event already there."""
    REFUSED = 3
    """Not finite, noise not positive, no such channel, or the twin was forgotten."""


@dataclass(frozen=True, eq=False)
class Outputs:
    """What one step adds. ``outcome`` (E,) holds an Outcome for each event given, in the order given.

    ``estimates`` are the ticks that were crossed; ``revision`` is the number of the twin's events a row rests on, so
    it grows when late data rewrites the row and is the same however the events arrived.
    """

    outcome: Codes
    estimates: list[EstimateRows]
    events: list[Event]

    def count(self, outcome: Outcome) -> int:
        """How many events ended so."""
        return int(np.count_nonzero(self.outcome == outcome))


@dataclass(frozen=True, eq=False)
class Now:
    """One twin as it is believed to be at ``time``; arrays are (n,) by state and (k + m,) by channel, SI.

    ``newest`` is the time of the newest event (-1: none). ``measured`` is NaN and ``measured_at`` -1 for a channel
    that never spoke. ``nis`` is the mean over the last ``nis_count`` samples (at most 200), each capped at its gate;
    a healthy filter keeps it within ``nis_low .. nis_high`` 99.9 % of the time. The totals count every event once,
    replays included: ``updates`` scored sensor samples with ``nis_total`` their summed NIS, ``gated`` of them kept
    out by the gate, ``resets`` recoveries.
    """

    time: int
    newest: int
    started: bool
    mean: Floats
    sigma: Floats
    measured: Floats
    measured_at: Ints
    nis: float
    nis_count: int
    nis_low: float
    nis_high: float
    nis_total: float
    updates: int
    gated: int
    resets: int


@dataclass
class _Group:
    """One type's cohort and what is saved of it."""

    cohort: Cohort
    journal: Journal


class Bank:
    """Twins by handle."""

    def __init__(self) -> None:
        self._groups: list[_Group] = []
        self._by_hash: dict[str, int] = {}
        self._names: dict[str, int] = {}
        self._group: Ints = np.zeros(0, np.int64)  # by handle; -1: forgotten
        self._row: Ints = np.zeros(0, np.int64)  # by handle
        self._unused: list[str] = []  # keys of a former life, to be cleared
        self._cleared = 0

    def adopt(self, twin: Twin) -> int:
        """Take a twin in, at its type's prior, and return its handle; handles are never used twice."""
        if twin.name in self._names:
            raise ValueError(f"{twin.name} is in the bank already")
        number = self._by_hash.get(twin.type.hash)
        if number is None:
            number = self._by_hash[twin.type.hash] = len(self._groups)
            cohort = Cohort(twin.type)
            self._groups.append(_Group(cohort, Journal(cohort)))
        group, handle = self._groups[number], len(self._row)
        row = group.cohort.enrol(twin.name, twin.parameters)
        group.journal.enrol(row)
        self._group, self._row = np.append(self._group, number), np.append(self._row, row)
        self._names[twin.name] = handle
        return handle

    def forget(self, handle: int) -> None:
        """Drop a twin."""
        group, row = self._find(handle)
        del self._names[str(group.cohort.names[row])]
        group.journal.leave(row)
        group.cohort.leave(row)
        self._group[handle] = -1

    def step(self, events: Events) -> Outputs:
        """Fuse a batch; rewinds and replays the twins for which something came late."""
        given, twin = _slots(events), np.asarray(events.twin, np.int64)
        outcome = np.full(len(twin), Outcome.REFUSED, np.uint8)
        group = np.full(len(twin), -1, np.int64)
        inside = (twin >= 0) & (twin < len(self._row))
        group[inside] = self._group[twin[inside]]
        sound = np.isfinite(given.value) & np.isfinite(given.noise) & (given.noise > 0.0) & (given.channel >= 0)
        rows, happenings = [], []
        for number in np.unique(group[group >= 0]).tolist():
            cohort, journal = self._groups[number].cohort, self._groups[number].journal
            at = np.flatnonzero(sound & (group == number) & (given.channel < len(cohort.kind.channels)))
            row, mine, produced = self._row[twin[at]], given.take(at), Produced()
            result = cohort.step(row, mine, produced)
            outcome[at] = result
            journal.note(row[result == TAKEN], mine.take(result == TAKEN))
            if (ticks := at_ticks(cohort, produced.ticks)) is not None:
                rows.append(ticks)
            happenings += [_told(cohort, reset) for reset in produced.resets]
        return Outputs(outcome, rows, happenings)

    def now(self, handles: Sequence[int], at: int | None = None) -> list[Now]:
        """Each twin predicted to ``at``, or as of its newest event if ``at`` is None or earlier; nothing live moves."""
        found: dict[int, Now] = {}
        chosen = np.array(handles, np.int64)
        if (self._group[chosen] < 0).any():
            raise KeyError("the twin was forgotten")
        for number in np.unique(self._group[chosen]).tolist():
            mine = chosen[self._group[chosen] == number]
            found |= zip(mine.tolist(), _views(self._groups[number].cohort, self._row[mine], at), strict=True)
        return [found[handle] for handle in handles]

    def forecast(self, handle: int, times: Ints) -> tuple[Floats, Floats]:
        """Mean and sigma (T, n) at the given times with the inputs held as they are."""
        group, row = self._find(handle)
        return forecast(group.cohort, row, np.asarray(times, np.int64))

    def state(self, handle: int) -> tuple[int, Floats, Floats]:
        """Raw posterior: time of the last event, x (n,), P (n, n)."""
        group, row = self._find(handle)
        state = group.cohort.state
        return int(state.time[row]), state.x[row].copy(), state.P[row].copy()

    def pack(self) -> dict[str, bytes]:
        """Everything to save since the last `saved`, as blobs by key; an empty blob clears its key.

        Asking again without `saved` in between gives the same content and more, so a failed save is simply retried.
        """
        blobs = dict.fromkeys(self._unused, b"")
        self._cleared = len(self._unused)
        for group in self._groups:
            blobs |= group.journal.pack()
        return blobs

    def saved(self) -> None:
        """The blobs of the last `pack` are durable."""
        self._unused, self._cleared = self._unused[self._cleared :], 0
        for group in self._groups:
            group.journal.saved()

    def restore(self, blobs: Mapping[str, bytes]) -> list[str]:
        """Continue where the packed bank was, bit for bit; call once, with all blobs, after the twins are adopted.

        Keys that are not the bank's are ignored. Returns one line for each twin or blob that could not be used
        (a changed type, a twin no longer adopted); such a twin starts from its prior. Raises BadData("checkpoint")
        for damaged blobs.
        """
        mine: dict[str, dict[str, bytes]] = {}
        for key, data in blobs.items():
            if key.startswith("twins/") and data:
                mine.setdefault(key.split("/")[1], {})[key] = data
        told = []
        for kind, packed in mine.items():
            if kind in self._by_hash:
                gone = self._groups[self._by_hash[kind]].journal.restore(packed)
                told += [f"{name}: saved with type {kind}, which it no longer is" for name in gone]
            else:
                self._unused += packed
                told.append(f"no twin is of type {kind} any more")
        return told

    def _find(self, handle: int) -> tuple[_Group, int]:
        if not 0 <= handle < len(self._row) or self._group[handle] < 0:
            raise KeyError(f"no twin has handle {handle}")
        return self._groups[self._group[handle]], int(self._row[handle])


def _slots(events: Events) -> Slots:
    return Slots(
        np.asarray(events.time, np.int64),
        np.asarray(events.channel, np.int16),
        np.asarray(events.origin, np.int64),
        np.asarray(events.value, np.float64),
        np.asarray(events.noise, np.float64),
    )


def _told(cohort: Cohort, reset: Reset) -> Event:
    """A recovery as an event; its id is the same whenever the same recovery is computed again."""
    name = str(cohort.names[reset.row])
    if reset.sensor < 0:
        cause, text = "state", "the estimate was no longer finite and starts again from its prior"
    else:
        sensor = cohort.kind.sensors[reset.sensor]
        cause = sensor.name
        text = f"{STREAK} samples in a row disagreed by about {reset.innovation:.4g} (SI) and were believed"
    return Event(f"{name}/{reset.time}/reset/{cause}", reset.time, "reset", name, f"{cause}: {text}")


def _views(cohort: Cohort, rows: Ints, at: int | None) -> list[Now]:
    state, judged = cohort.state.take(rows), health(cohort, rows)
    newest = np.where(cohort.ring.next[rows] > 0, state.time, -1)
    time = newest if at is None else np.maximum(newest, at)
    since = np.where(state.started, state.time, time)
    mean, sigma = ahead(cohort, rows, state.x, state.P, state.u, since, time)
    views = []
    for i, row in enumerate(rows):
        low, high = mean_band(int(judged.samples[i]))
        views.append(
            Now(
                time=int(time[i]),
                newest=int(newest[i]),
                started=bool(state.started[i]),
                mean=mean[i],
                sigma=sigma[i],
                measured=cohort.measured[row].copy(),
                measured_at=cohort.measured_at[row].copy(),
                nis=float(judged.nis[i]),
                nis_count=int(judged.samples[i]),
                nis_low=low,
                nis_high=high,
                nis_total=float(state.nis_total[i]),
                updates=int(state.updates[i]),
                gated=int(state.gated[i]),
                resets=int(state.resets[i]),
            )
        )
    return views
