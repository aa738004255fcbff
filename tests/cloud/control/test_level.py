"""The PI law: it reaches its target without a bump, an overshoot from wind-up, or a forbidden output."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.control.level import Law, LevelConfig, Memory, begin, fit, step
from cloud.provision.plan import Catalogue, SourceText, plan
from cloud.twins.model import Twin
from tests.small_cloud import SOURCES
from wire.errors import ConfigError
from wire.settings import parse_one
from wire.units import parse_unit

CONFIG = """\
control: tank-level
twin: tank-1
state: h
actuator: pump
target: 20 cm
gain: 0.8 V/cm
integral: 20 s
max_sigma: 1 cm
"""


def config(text: str = CONFIG) -> LevelConfig:
    return parse_one(text, "control.yaml").load(LevelConfig)


@pytest.fixture(scope="module")
def twin() -> Twin:
    return plan(Catalogue(), SOURCES).catalogue.twins["tank-1"]


def law(**changes: object) -> Law:
    usual: dict[str, object] = {
        "column": 0,
        "actuator": "pump",
        "unit": parse_unit("V"),
        "target": 0.2,
        "gain": 80.0,
        "integral_s": 20.0,
        "low": 0.0,
        "high": 10.0,
        "rate_per_s": None,
        "max_age_s": 5.0,
        "max_sigma": 0.01,
        "deadband": 0.05,
    }
    return Law(**(usual | changes))  # type: ignore[arg-type]


def test_a_configuration_becomes_si(twin: Twin) -> None:
    fitted = fit(config(), twin)
    assert fitted.target == pytest.approx(0.2)
    assert fitted.gain == pytest.approx(80.0)
    assert (fitted.low, fitted.high, fitted.max_sigma) == (0.0, 10.0, pytest.approx(0.01))
    assert fitted.deadband == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("state: h", "state: level", "no state 'level'"),
        ("actuator: pump", "actuator: valve", "no actuator 'valve'"),
        ("0.8 V/cm", "0.8 V", "gain is in 'V'"),
        ("20 cm", "20 degC", "target is in 'degC'"),
        ("1 cm", "1 furlongs?", "max_sigma"),
        ("20 s", "0 s", "integral must be longer"),
    ],
)
def test_a_wrong_configuration_is_refused(twin: Twin, old: str, new: str, complaint: str) -> None:
    with pytest.raises(ConfigError) as error:
        fit(config(CONFIG.replace(old, new)), twin)
    assert complaint in str(error.value)


def run_tank(found: Law, level: float, seconds: int, drain: float = 0.03) -> list[tuple[float, float]]:
    """A tank of its own: dh/dt = 1e-3 u - drain h, Euler with 0.1 s, the law once a second."""
    memory, trace = begin(found, level, 3.0), []
    for _ in range(seconds):
        memory = step(found, memory, level, 1.0)
        for _ in range(10):
            level += 0.1 * (1e-3 * memory.output - drain * level)
        trace.append((level, memory.output))
    return trace


def test_it_settles_on_its_target_without_remaining_error() -> None:
    trace = run_tank(law(), 0.1, 600)
    assert trace[-1][0] == pytest.approx(0.2, abs=1e-5)
    assert trace[-1][1] == pytest.approx(6.0, abs=1e-2)


def test_it_begins_where_the_actuator_is() -> None:
    memory = begin(law(), 0.1, 3.0)
    assert memory.output == 3.0
    assert step(law(), memory, 0.1, 0.0).output == pytest.approx(3.0)


def test_the_integral_does_not_wind_up_against_a_limit() -> None:
    """Half an hour out of reach (the drain stands open), then it closes: a wound-up integral would flood the tank."""
    found = law(high=6.5)
    memory, level = begin(found, 0.1, 3.0), 0.1
    for _ in range(1800):
        memory = step(found, memory, level, 1.0)
        level += 1e-3 * memory.output - 0.06 * level
    assert memory.output == 6.5
    overshoot = 0.0
    for _ in range(300):
        memory = step(found, memory, level, 1.0)
        level += 1e-3 * memory.output - 0.03 * level
        overshoot = max(overshoot, level - found.target)
    assert overshoot < 0.02
    assert level == pytest.approx(found.target, abs=2e-3)


@given(
    st.floats(0, 10),
    st.lists(st.tuples(st.floats(-1, 1), st.floats(0, 100)), min_size=1, max_size=30),
    st.floats(0.001, 5),
)
def test_it_never_asks_for_what_the_actuator_cannot_do(
    start: float, seen: list[tuple[float, float]], rate: float
) -> None:
    found = law(rate_per_s=rate)
    memory = begin(found, seen[0][0], start)
    for level, dt in seen:
        moved = step(found, memory, level, dt)
        assert found.low <= moved.output <= found.high
        assert abs(moved.output - memory.output) <= rate * dt + 1e-9
        assert math.isfinite(moved.integral)
        memory = moved


def test_an_output_outside_the_range_is_brought_back_by_the_rate_at_most() -> None:
    assert begin(law(), 0.1, 99.0) == Memory(10.0, pytest.approx(2.0))


def test_offset_units_count_as_differences() -> None:
    text = SOURCES[0].text.replace("0.1[cm/(V*s)]*v - 0.03[1/s]*h", "0.1[K/(V*s)]*v - 0.03[1/s]*(h - 300[K])")
    text = text.replace("unit: cm", "unit: degC").replace(" cm", " degC")
    warm = plan(Catalogue(), [SourceText("t.yaml", text), SOURCES[1]]).catalogue.twins["tank-1"]
    celsius = CONFIG.replace("20 cm", "20 degC").replace("V/cm", "V/K").replace("1 cm", "1 degC")
    fitted = fit(config(celsius), warm)
    assert fitted.target == pytest.approx(293.15)
    assert fitted.gain == pytest.approx(0.8)
    assert fitted.max_sigma == pytest.approx(1.0)
