"""Twin types: one file in people's units becomes SI numbers and functions, or every defect is told at its place."""

from __future__ import annotations

from math import sqrt
from pathlib import Path

import numpy as np
import pytest

from cloud.twins.compile import build_twin, compile_type
from cloud.twins.model import Twin, TwinType
from wire.errors import ConfigError
from wire.points import PointId
from wire.settings import parse, parse_one

CONFIGS = Path(__file__).parents[3] / "configs"

HEATED = """\
type: heated-tank
version: 2.1.0
horizon: 10 min
states:
  T_wall: {unit: degC, initial: 20 +/- 5, range: [-20, 180]}
  T_water: {unit: degC, initial: from T1, range: [0, 110]}
parameters:
  C_wall: {unit: kJ/K, value: 12 +/- 2}
  UA: {unit: W/K, value: 85 +/- 10}
inputs:
  P_heat: {unit: kW, from: heater}
  T_ambient: {unit: degC, initial: 20}
  g: {unit: m/s^2, constant: 9.81}
dynamics:
  T_wall: (P_heat - 300[W/K]*(T_wall - T_water)) / C_wall
  T_water: (300[W/K]*(T_wall - T_water) - UA*(T_water - T_ambient)) / 140[kJ/K]
process_noise: {T_wall: 0.05 degC/sqrt(s), T_water: 0.02 degC/sqrt(min)}
offsets: default
sensors:
  T1: {measures: T_water, unit: degF, noise: 0.15 degC, resolution: 0.1 degC, period: 2 s, max_age: 10 s, late: 3 s}
actuators:
  heater:
    unit: kW
    range: [0, 9]
    rate: 1 kW/min
    hold: 5 min
    safe: 0 kW
    readback: {tolerance: 200 W, settle: 3 s, dwell: 2 s}
"""
BIND = "bind: {T1: n/e/d/t1, T_ambient: n/e/d/ta, heater: {write: n/e/d/set, read: n/e/d/actual}}\n"


def compiled(text: str = HEATED) -> TwinType:
    return compile_type(parse_one(text, "type.yaml"))


def built(text: str, *types: TwinType) -> Twin:
    return build_twin(parse_one(text, "twin.yaml"), {kind.name: kind for kind in types})


def defects(text: str, *types: TwinType) -> list[str]:
    with pytest.raises(ConfigError) as refused:
        if types:
            built(text, *types)
        else:
            compiled(text)
    return [str(problem).partition(".yaml:")[2] for problem in refused.value.problems]


def configured(name: str) -> TwinType:
    path = CONFIGS / "types" / f"{name}.yaml"
    return compile_type(parse_one(path.read_text(), str(path)))


def start(kind: TwinType, rows: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Initial states, inputs and parameters, repeated."""
    x = np.array([[state.initial for state in kind.states]] * rows)
    u = np.array([[item.initial for item in kind.inputs]] * rows).reshape(rows, -1)
    p = np.array([[item.value for item in kind.parameters]] * rows).reshape(rows, -1)
    return x, u, p


def test_everything_inside_is_si() -> None:
    kind = compiled()
    wall, water, offset = kind.states
    assert (wall.initial, wall.sigma, wall.low, wall.high) == (293.15, 5.0, 253.14999999999998, 453.15)
    assert (water.initial_from, water.sigma) == ("T1", 0.15)
    assert (offset.name, offset.unit.text, offset.disturbance) == ("T_water_offset", "degC/s", True)
    assert kind.parameters[0].value == 12e3
    assert kind.parameters[0].sigma == 2e3
    assert kind.process_noise[:2] == pytest.approx([0.05, 0.02 / sqrt(60)], rel=1e-15)
    sensor = kind.sensors[0]
    assert (sensor.noise, sensor.resolution) == (0.15, 0.1)
    assert (sensor.period_ns, sensor.max_age_ns, sensor.late_ns) == (2 * 10**9, 10 * 10**9, 3 * 10**9)
    heater = kind.actuators[0]
    assert (heater.low, heater.high, heater.safe, heater.tolerance) == (0.0, 9000.0, 0.0, 200.0)
    assert heater.rate_per_s == pytest.approx(1000 / 60)
    assert (heater.hold_s, heater.settle_s, heater.dwell_s) == (300.0, 3.0, 2.0)
    assert [(item.actuator, item.constant, item.initial) for item in kind.inputs] == [
        ("heater", False, 0.0),
        (None, False, 293.15),
        (None, True, 9.81),
    ]
    assert kind.channels == ("P_heat", "T_ambient", "g", "T1")
    assert (kind.resolution_ns, kind.horizon_ns, kind.tick_ns) == (10**6, 600 * 10**9, 10**9)
    assert kind.linear


def test_equations_are_the_authors() -> None:
    kind = compiled()
    x = np.array([[310.0, 300.0, 1e-3]])
    u = np.array([[2000.0, 290.0, 9.81]])
    p = np.array([[12e3, 85.0]])
    rates = [(2000 - 300 * 10) / 12e3, (300 * 10 - 85 * 10) / 140e3 + 1e-3, 0.0]
    assert kind.rates(x, u, p)[0] == pytest.approx(rates, rel=1e-14)
    jacobian = [[-300 / 12e3, 300 / 12e3, 0], [300 / 140e3, -385 / 140e3, 1], [0, 0, 0]]
    assert kind.rates_jacobian(x, u, p)[0] == pytest.approx(np.array(jacobian), rel=1e-14)
    assert kind.input_jacobian(x, u, p)[0] == pytest.approx(
        np.array([[1 / 12e3, 0, 0], [0, 85 / 140e3, 0], [0, 0, 0]]), rel=1e-14
    )
    assert kind.measure(x, u, p).tolist() == [[300.0]]
    assert kind.measure_jacobian(x, u, p).tolist() == [[[0.0, 1.0, 0.0]]]


def test_the_tank_is_johanssons_computed_by_hand_in_centimetres() -> None:
    kind = configured("quadruple-tank")
    assert not kind.linear
    h = np.array([12.4, 12.7, 1.8, 1.4])
    x, _, p = start(kind)
    x[0, :4], x[0, 4:] = h / 100, 0.0
    u = np.array([[3.0, 3.0]])
    out = np.array([0.071, 0.057, 0.071, 0.057]) * np.sqrt(2 * 981 * h)
    expected = [
        (-out[0] + out[2] + 0.7 * 3.33 * 3) / 28,
        (-out[1] + out[3] + 0.6 * 3.35 * 3) / 32,
        (-out[2] + 0.4 * 3.35 * 3) / 28,
        (-out[3] + 0.3 * 3.33 * 3) / 32,
    ]
    assert kind.rates(x, u, p)[0, :4] * 100 == pytest.approx(expected, abs=1e-5)
    empty = kind.rates_jacobian(np.zeros((1, 6)), u, p)
    assert np.isfinite(empty).all()


@pytest.mark.parametrize("name", ["quadruple-tank", "thermal-zone", "vehicle"])
def test_jacobians_are_the_slopes(name: str) -> None:
    kind = configured(name)
    x, u, p = start(kind)
    rng = np.random.default_rng(1)
    x = x + np.array([state.sigma for state in kind.states]) * rng.uniform(-0.5, 0.5, x.shape)
    steps = np.array([state.sigma for state in kind.states]) * 1e-5
    for function, jacobian in ((kind.rates, kind.rates_jacobian), (kind.measure, kind.measure_jacobian)):
        exact = jacobian(x, u, p)[0]
        for column, step in enumerate(steps):
            shift = np.zeros_like(x)
            shift[0, column] = step
            slope = (function(x + shift, u, p) - function(x - shift, u, p))[0] / (2 * step)
            assert exact[:, column] == pytest.approx(slope, rel=1e-5, abs=1e-9 / step * np.abs(x).max() * 1e-6)


@pytest.mark.parametrize("name", ["quadruple-tank", "thermal-zone", "vehicle"])
def test_a_row_does_not_feel_its_neighbours_to_the_last_bit(name: str) -> None:
    kind = configured(name)
    x, u, p = start(kind, 41)
    rng = np.random.default_rng(2)
    x = x + np.array([state.sigma for state in kind.states]) * rng.uniform(-1, 1, x.shape)
    for function in (kind.rates, kind.rates_jacobian, kind.input_jacobian, kind.measure, kind.measure_jacobian):
        together = function(x, u, p)
        for rows in (slice(0, 1), slice(7, 10), slice(3, 40, 5), slice(40, 41)):
            assert (function(x[rows], u[rows], p[rows]) == together[rows]).all()


def test_the_hash_names_the_model_and_not_its_looks() -> None:
    name = compiled().hash
    assert compiled("# a comment\n" + HEATED.replace("(T_wall - T_water)", "(T_wall-T_water)")).hash == name
    assert compiled(HEATED.replace("12 +/- 2", "12000 +/- 2000").replace("kJ/K, value", "J/K, value")).hash == name
    for change in (
        ("0.15 degC", "0.16 degC"),
        ("300[W/K]", "301[W/K]"),
        ("2.1.0", "2.1.1"),
        ("offsets: default", "offsets: none"),
        ("horizon: 10 min", "horizon: 11 min"),
        ("T_wall - T_water", "T_wall + T_water"),
    ):
        assert compiled(HEATED.replace(*change)).hash != name


DEFECTS = [
    ("unit: W/K, value", "unit: W/Kk, value", "9:14: 'W/Kk': unknown unit 'Kk'"),
    ("initial: 20 +/- 5", "initial: 20", "5:33: a belief needs its uncertainty"),
    ("initial: 20 +/- 5", "initial: 20 +/- -5", "5:33:"),
    ("initial: 20 +/- 5", "initial: 200 +/- 5", "5:33: starts outside its own range"),
    ("from T1", "from T2", "6:34: no sensor is called T2 (there are T1)"),
    ("range: [0, 110]", "range: [110, 0]", "6:50: the lower bound is not below"),
    ("from: heater", "from: heeter", "11:28: no actuator is called heeter (there are heater)"),
    ("unit: kW, from", "unit: kg, from", "11:18: actuator heater is in kW"),
    ("initial: 20}", "}", "12:"),
    ("(P_heat - 300[W/K]*", "(P_heat - 300[W]*", "15:12: W - W*K: only values of one dimension are added"),
    ("(P_heat - 300[W/K]*", "(Pheat - 300[W/K]*", "15:12: unknown name Pheat"),
    ("/ C_wall", "/ C_wall**UA", "15:52: an exponent must be a plain number"),
    (") / C_wall", ")", "15:11: this is in W, but K/s is needed"),
    ("140[kJ/K]", "140[kJ/Kk]", "16:71: 'kJ/Kk'"),
    ("  T_wall: (P_heat", "  T_wal: (P_heat", "15:"),
    ("0.05 degC/sqrt(s)", "0.05 degC/s", "17:25: degC/s is not a unit of K/s^0.5 (for example 0.1 degC/sqrt(s))"),
    ("0.05 degC/sqrt(s)", "-0.05 degC/sqrt(s)", "17:25: must not be negative"),
    ("T_wall: 0.05 degC/sqrt(s), ", "", "`T_wall` is missing"),
    ("offsets: default", "offsets: {T_wal: 1 degC/s}", "18:18: no state is called T_wal"),
    ("offsets: default\n", "", "1:1: `offsets` is missing"),
    ("noise: 0.15 degC", "noise: 0 degC", "20:46: must be above zero"),
    ("noise: 0.15 degC", "noise: 0.15 m", "20:46: m does not measure what degF does"),
    ("noise: 0.15 degC", "noise: 0.15", "must be a number with its unit"),
    ("measures: T_water", "measures: P_heat", "20:18: this is in W, but K is needed"),
    ("measures: T_water", "measures: T_ambient", "18:10: no size follows from the process noise"),
    ("late: 3 s", "gate: 2", "`sensors.T1.gate` must be less than 1, not 2"),
    ("range: [0, 9]", "range: [1, 9]", "27:11: the safe value lies outside the range"),
    ("rate: 1 kW/min", "rate: 1 kW", "25:11: kW is not a unit of W/s"),
    ("    safe: 0 kW\n", "", "22:3: `safe` is missing"),
    ("    readback: {tolerance: 200 W, settle: 3 s, dwell: 2 s}\n", "", "22:3: `readback` is missing"),
    (
        "    hold: 5 min\n",
        "    hold: 5 min\n    interlocks: [a]\n",
        "27:17: `actuators.heater.interlocks` belongs to the",
    ),
    ("    hold: 5 min\n", "    hold: 5 min\n    slott: 3\n", "27:5: unknown key `slott` (did you mean `slot`?)"),
    ("version: 2.1.0", "version: 2.1", "2:10:"),
    ("type: heated-tank", "type: signal", "1:7: `signal` is the name of a ready-made type"),
    ("  UA: {unit", "  exp: {unit", "`exp` is the name of a function"),
    ("  UA: {unit", "  T_wall: {unit", "`T_wall` is also one of the states"),
    ("  T1: {measures", "  g: {measures", "`g` is also one of the inputs"),
    ("horizon: 10 min", "horizon: 0 s", "3:10: must be above zero"),
]


@pytest.mark.parametrize(("old", "new", "expected"), DEFECTS)
def test_every_seeded_defect_is_found_at_its_place(old: str, new: str, expected: str) -> None:
    assert old in HEATED
    found = defects(HEATED.replace(old, new, 1))
    assert any(expected in line for line in found), found


def test_defects_are_told_together() -> None:
    text = HEATED.replace("W/K, value", "W/Kk, value").replace("0.15 degC", "0 degC").replace("[0, 9]", "[1, 9]")
    assert [line.partition(":")[0] for line in defects(text)] == ["9", "20", "27"]


def test_a_state_that_nobody_feels_is_named() -> None:
    text = HEATED.replace("300[W/K]*(T_wall - T_water) - UA", "- UA").replace("offsets: default", "offsets: none")
    (found,) = defects(text.replace("(- UA", "(0 - UA"))
    assert "no sensor can tell T_wall (" in found


def test_offsets_may_be_sized_or_left_out() -> None:
    assert [state.name for state in compiled(HEATED.replace("offsets: default", "offsets: none")).states] == [
        "T_wall",
        "T_water",
    ]
    sized = compiled(HEATED.replace("offsets: default", "offsets: {T_wall: 0.6 degC/min}"))
    assert sized.states[2].name == "T_wall_offset"
    assert sized.states[2].sigma == pytest.approx(0.01)
    assert sized.process_noise[2] == pytest.approx(0.01 / sqrt(600))


def test_a_twin_binds_channels_and_actuators() -> None:
    twin = built(
        f"twin: tank-7\nof: heated-tank@2\n{BIND}parameters: {{UA: 91 +/- 5, C_wall: 13000 J/K}}\nmode: act\n",
        compiled(),
    )
    assert twin.name == "tank-7"
    assert twin.mode == "act"
    assert twin.parameters.tolist() == [13e3, 91.0]
    assert twin.channels == {
        "P_heat": PointId("n", "e", "d", "actual"),
        "T_ambient": PointId("n", "e", "d", "ta"),
        "T1": PointId("n", "e", "d", "t1"),
    }
    assert twin.actuators["heater"].write == PointId("n", "e", "d", "set")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"twin: t\nof: heated-tank@3\n{BIND}", "2:5: heated-tank is at version 2.1.0"),
        (f"twin: t\nof: heeted-tank\n{BIND}", "2:5: no type is called heeted-tank"),
        (f"twin: T\nof: heated-tank\n{BIND}", "1:7:"),
        ("twin: t\nof: heated-tank\nbind: {T1: n/e/d/t1}", "3:7: T_ambient, heater must be bound to a point"),
        (f"twin: t\nof: heated-tank\n{BIND}".replace("T1:", "T3:"), "heated-tank has nothing called T3 to bind"),
        (f"twin: t\nof: heated-tank\n{BIND}".replace("T1:", "g:"), "heated-tank has nothing called g to bind"),
        (f"twin: t\nof: heated-tank\n{BIND}".replace("n/e/d/t1", "n/e/d"), "3:12: `bind.T1.point` is wrong"),
        (f"twin: t\nof: heated-tank\n{BIND}".replace("n/e/d/t1", "{write: a/b/c/d, read: a/b/c/d}"), "T1 is one point"),
        ("twin: t\nof: heated-tank\nbind: {T1: n/e/d/t, T_ambient: n/e/d/u, heater: n/e/d/v}", "heater is an actuator"),
        (
            f"twin: t\nof: heated-tank\n{BIND}parameters: {{UB: 1}}",
            "no parameter is called UB (heated-tank has C_wall, UA)",
        ),
        (f"twin: t\nof: heated-tank\n{BIND}parameters: {{UA: 1 kg}}", "4:18: kg does not measure what W/K does"),
        (f"twin: t\nof: heated-tank\n{BIND}parameters: {{UA: true}}", "4:18:"),
        (f"twin: t\nof: heated-tank\n{BIND}mode: auto", "4:7:"),
        (f"twin: t\nof: heated-tank\n{BIND}with: {{unit: K, noise: 1 K}}", "`with` is for the ready-made types"),
    ],
)
def test_a_wrong_twin_is_refused(text: str, expected: str) -> None:
    found = defects(text, compiled())
    assert any(expected in line for line in found), found


def test_every_shipped_type_and_twin_compiles() -> None:
    types = {}
    for path in sorted((CONFIGS / "types").glob("*.yaml")):
        for document in parse(path.read_text(), str(path)):
            kind = compile_type(document)
            types[kind.name] = kind
    assert set(types) >= {"quadruple-tank", "thermal-zone", "vehicle"}
    twins = [
        build_twin(document, types)
        for path in sorted((CONFIGS / "twins").glob("*.yaml"))
        for document in parse(path.read_text(), str(path))
    ]
    assert {twin.name for twin in twins} >= {"tank-1", "zone-1", "car-1"}
    assert types["thermal-zone"].linear
