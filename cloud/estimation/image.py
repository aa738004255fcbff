"""Some rows of a cohort as arrays that can be saved, and put back by the twins' names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from cloud.estimation.blobs import Blob
from cloud.estimation.cohort import Cohort
from cloud.estimation.ring import STRIDE, Slots, spread
from cloud.estimation.state import State
from cloud.twins.model import Ints


def whole(cohort: Cohort, rows: Sequence[int]) -> Blob:
    """States, events and anchors of these rows."""
    at = np.array(rows, np.int64)
    ring = cohort.ring
    first, following = ring.first[at], ring.next[at]
    which, number = spread(first, following - first)
    events = ring.read(at[which], number)
    anchored, anchor = spread(first // STRIDE, following // STRIDE - first // STRIDE + 1)
    anchors = ring.anchor(at[anchored], anchor * STRIDE)
    arrays = {
        "first": first,
        "next": following,
        "floor": ring.floor[at],
        "measured": cohort.measured[at],
        "measured_at": cohort.measured_at[at],
        "nis": ring.nis[at[which], number % ring.capacity],
        **{f"state.{name}": array for name, array in cohort.state.take(at).arrays.items()},
        **{f"anchor.{name}": array for name, array in anchors.arrays.items()},
        **{f"event.{name}": array for name, array in zip(Slots._fields, events.columns, strict=True)},
    }
    return Blob({"names": [cohort.names[row] for row in rows]}, arrays)


def put_back(cohort: Cohort, blob: Blob, rows: Mapping[str, int]) -> None:
    """Undo `whole` for the twins that have a row."""
    names, arrays, ring = blob.facts["names"], blob.arrays, cohort.ring
    home = np.array([rows.get(name, -1) for name in names], np.int64)
    here = np.flatnonzero(home >= 0)
    at = home[here]
    first, following = arrays["first"], arrays["next"]
    ring.reserve(at, (following - first)[here])
    ring.first[at], ring.next[at], ring.floor[at] = first[here], following[here], arrays["floor"][here]
    cohort.measured[at], cohort.measured_at[at] = arrays["measured"][here], arrays["measured_at"][here]
    cohort.state.put(at, _state(blob, "state").take(here))
    which, number = spread(first, following - first)
    mine = home[which] >= 0
    ring.write(home[which][mine], number[mine], _slots(blob).take(mine), arrays["nis"][mine])
    which, anchor = spread(first // STRIDE, following // STRIDE - first // STRIDE + 1)
    found = np.flatnonzero(home[which] >= 0)
    ring.keep(home[which][found], anchor[found] * STRIDE, _state(blob, "anchor").take(found))


def delta(cohort: Cohort, batches: Sequence[tuple[Ints, Slots]]) -> Blob:
    """Events in order of arrival."""
    rows = np.concatenate([rows for rows, _ in batches])
    events = Slots.join(events for _, events in batches)
    used, local = np.unique(rows, return_inverse=True)
    arrays = {f"event.{name}": array for name, array in zip(Slots._fields, events.columns, strict=True)}
    return Blob({"names": [cohort.names[row] for row in used]}, {"twin": local.astype(np.uint8), **arrays})


def events_of(blob: Blob, rows: Mapping[str, int]) -> tuple[Ints, Slots]:
    """Undo `delta` for the twins that have a row."""
    home = np.array([rows.get(name, -1) for name in blob.facts["names"]], np.int64)
    row = home[blob.arrays["twin"]]
    return row[row >= 0], _slots(blob).take(row >= 0)


def _state(blob: Blob, prefix: str) -> State:
    return State(**{name: blob.arrays[f"{prefix}.{name}"] for name in State.__dataclass_fields__})


def _slots(blob: Blob) -> Slots:
    return Slots(*(blob.arrays[f"event.{name}"] for name in Slots._fields))
