"""Faults begin and end when they say, have the size they say, and hit what they name."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from simulators.faults import SPIKE_SHARE, Condition, Fault, SensorFaults, condition
from simulators.noise import stream

COUNT = 100_000


def fault(**fields: object) -> Fault:
    return Fault.model_validate({"device": "tank", "onset": "10 s"} | fields)


def ill(*faults: Fault) -> SensorFaults:
    return SensorFaults(faults, stream(3, "faults"))


def test_onset_ramp_and_end() -> None:
    leak = fault(fault="leak", duration="20 s", ramp="4 s", magnitude=0.2)
    sizes = {t: leak.size(t) for t in (9.99, 10.0, 12.0, 14.0, 29.99, 30.0)}
    assert sizes == pytest.approx({9.99: 0.0, 10.0: 0.0, 12.0: 0.1, 14.0: 0.2, 29.99: 0.2, 30.0: 0.0})


def test_no_duration_lasts_for_ever() -> None:
    assert fault(fault="leak", magnitude=0.2).size(1e9) == 0.2


def test_bias_shifts_only_while_active() -> None:
    sensor = ill(fault(fault="bias", point="h1", duration="5 s", magnitude=1.0))
    assert [sensor.shift(t) for t in (0.0, 10.0, 14.9, 15.0)] == [0.0, 1.0, 1.0, 0.0]


def test_stuck_repeats_the_last_value_before_the_onset() -> None:
    sensor = ill(fault(fault="stuck", point="h1", duration="5 s"))
    shown = [sensor.apply(t, value) for t, value in ((9.0, 1.0), (9.9, 2.0), (10.0, 3.0), (14.0, 4.0), (15.0, 5.0))]
    assert shown == [1.0, 2.0, 2.0, 2.0, 5.0]


def test_spikes_come_at_their_rate_both_ways() -> None:
    sensor = ill(fault(fault="spike", point="h1", magnitude=5.0))
    shifts = np.array([sensor.shift(20.0) for _ in range(COUNT)])
    assert set(shifts) == {0.0, 5.0, -5.0}
    assert (shifts != 0).mean() == pytest.approx(SPIKE_SHARE, rel=0.06)
    assert shifts.mean() == pytest.approx(0.0, abs=0.02)


def test_dropouts_take_their_share() -> None:
    sensor = ill(fault(fault="dropout", point="h1", magnitude=0.3))
    lost = np.array([sensor.apply(20.0, 1.0) is None for _ in range(COUNT)])
    assert lost.mean() == pytest.approx(0.3, rel=0.03)
    runs = np.diff(np.flatnonzero(~lost)) - 1
    assert runs[runs > 0].mean() == pytest.approx(1 / 0.7, rel=0.03)
    whole = ill(fault(fault="dropout", point="h1"))
    assert whole.apply(9.0, 1.0) == 1.0
    assert whole.apply(11.0, 1.0) is None


def test_worst_condition_wins() -> None:
    faults = [
        fault(fault="slow", magnitude=0.2),
        fault(fault="slow", magnitude=0.5, duration="5 s"),
        fault(fault="dead", onset="20 s"),
    ]
    assert condition(faults, 5.0) == Condition()
    assert condition(faults, 12.0) == Condition(delay_s=0.5)
    assert condition(faults, 16.0) == Condition(delay_s=0.2)
    assert condition(faults, 21.0).dead


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"fault": "bias", "magnitude": 1.0}, "needs the point"),
        ({"fault": "leak", "magnitude": 1.0, "point": "h1"}, "takes no point"),
        ({"fault": "bias", "point": "h1"}, "needs a magnitude"),
        ({"fault": "dropout", "point": "h1", "magnitude": 1.5}, "share of samples"),
        ({"fault": "leak", "magnitude": 1.0, "onset": 5}, "number with its unit"),
        ({"fault": "leak", "magnitude": 1.0, "colour": "red"}, "Extra inputs"),
    ],
)
def test_nonsense_is_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        fault(**fields)
