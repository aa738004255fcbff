"""Each kind of noise against its own statistics at 1e5 samples."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulators.noise import Instrument, quantise, stream
from simulators.plants.base import Sensor

COUNT = 100_000


def samples(sensor: Sensor, true: float = 0.0, count: int = COUNT) -> np.ndarray:
    instrument = Instrument(sensor, stream(1, "test"))
    return np.array([instrument.read(true) for _ in range(count)])


def lag_one(values: np.ndarray) -> float:
    centred = values - values.mean()
    return float((centred[1:] * centred[:-1]).mean() / centred.var())


def test_white_noise_is_white_and_normal() -> None:
    values = samples(Sensor("cm", 0.1, sigma=0.3), 5.0)
    bound = 4 / np.sqrt(COUNT)
    assert values.mean() == pytest.approx(5.0, abs=0.3 * bound)
    assert values.std() == pytest.approx(0.3, rel=bound)
    assert lag_one(values) == pytest.approx(0.0, abs=bound)
    standard = (values - 5.0) / 0.3
    assert (standard**3).mean() == pytest.approx(0.0, abs=0.05)
    assert (standard**4).mean() == pytest.approx(3.0, abs=0.1)


def test_coloured_noise_has_its_correlation_and_its_size() -> None:
    values = samples(Sensor("K", 1.0, sigma=0.5, correlation=0.7))
    assert lag_one(values) == pytest.approx(0.7, abs=0.01)
    assert values.std() == pytest.approx(0.5, rel=0.02)


def test_coloured_noise_starts_at_full_size() -> None:
    sensor = Sensor("K", 1.0, sigma=0.5, correlation=0.9)
    first = [Instrument(sensor, stream(seed, "test")).read(0.0) for seed in range(4000)]
    assert np.std(first) == pytest.approx(0.5, rel=0.05)


def test_drift_is_a_random_walk() -> None:
    values = samples(Sensor("K", 0.25, drift=0.2))
    steps = np.diff(values)
    assert steps.std() == pytest.approx(0.2 * np.sqrt(0.25), rel=0.02)
    assert lag_one(steps) == pytest.approx(0.0, abs=0.02)


def test_converter_error_is_uniform() -> None:
    sensor = Sensor("cm", 0.1, sigma=0.3, step=0.1, low=0.0, high=25.0)
    clean, coarse = samples(Sensor("cm", 0.1, sigma=0.3), 10.0), samples(sensor, 10.0)
    error = coarse - clean
    assert np.abs(error).max() <= 0.05 + 1e-12
    assert error.std() == pytest.approx(0.1 / np.sqrt(12), rel=0.02)
    assert len(np.unique(np.round(coarse / 0.1))) > 10


@settings(max_examples=200)
@given(value=st.floats(-1e6, 1e6), step=st.floats(1e-3, 10.0))
def test_converter_is_idempotent_and_bounded(value: float, step: float) -> None:
    sensor = Sensor("x", 1.0, step=step, low=-50.0, high=50.0)
    once = quantise(value, sensor)
    assert -50.0 <= once <= 50.0 + step / 2 + 1e-9
    assert quantise(once, sensor) == pytest.approx(once, abs=1e-9)


def test_scale_and_bias_come_before_the_converter() -> None:
    assert Instrument(Sensor("m/s", 0.1, scale=1.01, bias=0.5), stream(0)).read(10.0) == pytest.approx(10.6)


def test_streams_are_apart_and_repeatable() -> None:
    first = stream(1, "tank", "h1").standard_normal(1000)
    assert (stream(1, "tank", "h1").standard_normal(1000) == first).all()
    for other in (stream(1, "tank", "h2"), stream(2, "tank", "h1"), stream(1, "h1", "tank")):
        assert abs(np.corrcoef(first, other.standard_normal(1000))[0, 1]) < 0.15
