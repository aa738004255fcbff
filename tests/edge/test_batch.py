"""From samples to columns: whose time counts, what is a value, and what tells two readings apart."""

from __future__ import annotations

import math
from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from edge.batch import Batch
from edge.drivers.base import Samples
from wire.messages import ReadingsBody
from wire.quality import FIRST_BAD, Quality

NOW = 1_700_000_000_000_000_000
MINUTE = 60_000_000_000


def batch(*ranges: tuple[float, float] | None) -> Batch:
    return Batch("s", ranges or [None] * 10, 5 * MINUTE)


def rows(body: ReadingsBody | None) -> list[tuple[int, int, int, int, float | int | str | None]]:
    """(point, time, ordinal, quality, value) of every row."""
    assert body is not None
    values, side = iter(body.value), dict(body.side)
    out = []
    for row, point in enumerate(body.point):
        code = body.quality[row] if body.quality else 0
        ordinal = body.ordinal[row] if body.ordinal else 0
        value = None if code >= FIRST_BAD else side[row] if row in side else next(values)
        out.append((point, body.base + body.dt[row], ordinal, code, value))
    return out


def test_a_polled_device_gets_the_edges_time() -> None:
    gathered = batch()
    gathered.add(3, Samples([0, 1], [0, 0], [1.5, 2.5], [0, 0]), NOW)
    body = gathered.take()
    assert rows(body) == [(3, NOW, 0, 0, 1.5), (4, NOW, 0, 0, 2.5)]
    assert body is not None
    assert (body.quality, body.ordinal, body.lag) == (None, None, None)
    assert gathered.take() is None


def test_a_sources_stamp_counts_within_the_skew_only() -> None:
    gathered = batch()
    samples = Samples([0, 0, 0], [NOW - MINUTE, NOW - 6 * MINUTE, NOW + 6 * MINUTE], [1.0, 2.0, 3.0], [0, 0, 67])
    gathered.add(0, samples, NOW)
    body = gathered.take()
    assert rows(body) == [
        (0, NOW - MINUTE, 0, Quality.GOOD, 1.0),
        (0, NOW, 0, Quality.UNCERTAIN_CLOCK, 2.0),
        (0, NOW, 1, Quality.UNCERTAIN_SENSOR, 3.0),
    ]
    assert body is not None
    assert body.lag == [MINUTE, 0, 0]


def test_what_is_not_finite_or_out_of_range_has_a_reason_instead_of_a_value() -> None:
    gathered = batch((0.0, 10.0), None)
    samples = Samples([0, 0, 0, 1, 1], [1, 2, 3, 4, 5], [11.0, 10.0, math.nan, -math.inf, 99.0], [0] * 5)
    for row in range(5):
        samples.time[row] = NOW + row
    gathered.add(0, samples, NOW)
    assert [row[3:] for row in rows(gathered.take())] == [(136, None), (0, 10.0), (135, None), (135, None), (0, 99.0)]


def test_typed_values_stay_beside_the_columns() -> None:
    gathered = batch()
    gathered.add(0, Samples([0], [0], [1.0], [0]), NOW)
    gathered.add(1, Samples([0, 1], [0, 0], [0.0, 0.0], [0, 0], {0: "on", 1: 2**60}), NOW)
    assert [row[4] for row in rows(gathered.take())] == [1.0, "on", 2**60]


def test_a_repeated_newest_value_is_no_new_reading() -> None:
    gathered = batch()
    newest = {0: NOW, 1: NOW - 5}
    gathered.resume([0, 1], lambda point: newest[point])
    gathered.add(0, Samples([0, 1, 0], [NOW, NOW, NOW], [1.0, 2.0, 3.0], [0, 0, 0]), NOW)
    assert [(row[0], row[4]) for row in rows(gathered.take())] == [(1, 2.0), (0, 3.0)]
    assert gathered.repeated == 1


def test_a_full_batch_is_taken_in_records() -> None:
    gathered = batch()
    for tick in range(5):
        gathered.add(0, Samples([0, 1], [0, 0], [0.0, 0.0], [0, 0], {1: str(tick)}), NOW + tick)
    taken = []
    while (body := gathered.take(3)) is not None:
        assert len(body.point) <= 3
        taken += rows(body)
    assert [(row[0], row[4]) for row in taken] == [(i % 2, 0.0 if i % 2 == 0 else str(i // 2)) for i in range(10)]


STAMPS = st.sampled_from([0, NOW, NOW + 1, NOW - MINUTE, NOW - 10 * MINUTE])
ROWS = st.lists(st.tuples(st.integers(0, 2), STAMPS, st.sampled_from([1.0, math.nan]), st.sampled_from([0, 64, 129])))


@given(st.lists(st.tuples(ROWS, st.integers(0, 2)), max_size=8), st.integers(1, 7))
def test_every_row_comes_out_once_under_its_own_key(polls: list[tuple[list[tuple]], int], most: int) -> None:
    gathered, now, given_rows, out = batch(), NOW, 0, []
    for samples, later in polls:
        now += later
        columns = [list(column) for column in zip(*samples, strict=True)] or [[], [], [], []]
        gathered.add(0, Samples(*columns), now)
        given_rows += len(samples)
    while (body := gathered.take(most)) is not None:
        out += rows(body)
    assert len(out) == given_rows
    keys = defaultdict(int)
    for point, time, ordinal, _, _ in out:
        keys[point, time, ordinal] += 1
    assert set(keys.values()) <= {1}
