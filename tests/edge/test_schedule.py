"""Polling times: on the grid, spread, never to catch up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.schedule import Schedule


def test_no_drift_and_no_catching_up() -> None:
    schedule = Schedule(100.0, 0.5)
    assert [schedule.next(now) for now in (100.0, 100.01, 100.7, 101.0)] == [100.0, 100.5, 101.0, 101.5]
    assert schedule.missed == 0
    assert schedule.next(110.2) == 110.0
    assert schedule.missed == 16
    assert schedule.next(110.2) == 110.5


def test_devices_are_spread_over_a_period() -> None:
    firsts = [Schedule.staggered(0.0, 1.0, index, 4).next(0.0) for index in range(4)]
    assert firsts == [0.0, 0.25, 0.5, 0.75]


@given(st.floats(0.01, 10), st.lists(st.floats(0, 50), max_size=50))
def test_every_instant_is_on_the_grid_and_later_than_the_last(period: float, polls: list[float]) -> None:
    schedule, now, before = Schedule(0.0, period), 0.0, -1.0
    asked = 0
    for took in polls:
        due = schedule.next(now)
        asked += 1
        assert due > before
        assert due / period == pytest.approx(round(due / period), abs=1e-6)
        assert due > now - period
        now, before = max(now, due) + took, due
    assert asked + schedule.missed == (0 if before < 0 else round(before / period) + 1)
