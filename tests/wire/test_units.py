"""Units: exact factors, offsets only for levels, one SI text per dimension, and hostile text costs nothing."""

from __future__ import annotations

import time
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire.errors import BadData
from wire.units import NO_DIMENSION, TIME, parse_unit


@pytest.mark.parametrize(
    ("text", "si", "factor", "offset"),
    [
        ("", "1", 1.0, 0.0),
        ("1", "1", 1.0, 0.0),
        ("%", "1", 0.01, 0.0),
        ("V", "V", 1.0, 0.0),
        ("cm", "m", 0.01, 0.0),
        ("cm^3", "m^3", 1e-6, 0.0),
        ("cm³", "m^3", 1e-6, 0.0),
        ("l/min", "m^3/s", 1e-3 / 60, 0.0),
        ("degC", "K", 1.0, 273.15),
        ("°C", "K", 1.0, 273.15),
        ("degF", "K", 5 / 9, 459.67 * 5 / 9),
        ("deg", "rad", 0.017453292519943295, 0.0),
        ("rpm", "rad/s", 0.10471975511965977, 0.0),
        ("kJ/K", "J/K", 1e3, 0.0),
        ("MJ/degC", "J/K", 1e6, 0.0),
        ("K/W", "K/W", 1.0, 0.0),
        ("W/(m^2*K)", "W/(m^2*K)", 1.0, 0.0),
        ("W/m^2/K", "W/(m^2*K)", 1.0, 0.0),
        ("cm^3/(V*s)", "m^3/(V*s)", 1e-6, 0.0),
        ("degC/sqrt(s)", "K/s^0.5", 1.0, 0.0),
        ("degC/min", "K/s", 1 / 60, 0.0),
        ("cm/s/sqrt(s)", "m/s^1.5", 0.01, 0.0),
        ("m s^-1", "m/s", 1.0, 0.0),
        ("m/s**2", "m/s^2", 1.0, 0.0),
        ("kWh", "J", 3.6e6, 0.0),
        ("bar", "Pa", 1e5, 0.0),
        ("Hz", "1/s", 1.0, 0.0),
        ("uS/cm", "1/(ohm*m)", 1e-4, 0.0),
        ("t", "kg", 1e3, 0.0),
    ],
)
def test_units_and_their_si(text: str, si: str, factor: float, offset: float) -> None:
    unit = parse_unit(text)
    assert (unit.text, unit.si) == (text, si)
    assert unit.factor == pytest.approx(factor, rel=4e-16)
    assert unit.offset == pytest.approx(offset, rel=4e-16)


@pytest.mark.parametrize("text", ["%", "cm^3/(V*s)", "degF", "deg/s", "W/(m^2*K)", "kg*m^2", "m/s^1.5", "uS/cm", "A*s"])
def test_the_si_text_is_a_unit_that_changes_nothing(text: str) -> None:
    si = parse_unit(parse_unit(text).si)
    assert (si.si, si.factor, si.offset) == (si.text, 1.0, 0.0)
    assert si.dimension == parse_unit(text).dimension


def test_decimal_factors_are_exact() -> None:
    factors = [parse_unit(text).factor for text in ("cm³", "l", "cm^3", "mol/l", "uS/cm", "l/min")]
    assert factors == [1e-6, 1e-3, 1e-6, 1e3, 1e-4, 1e-3 / 60]


def test_an_offset_stays_out_of_products() -> None:
    offsets = [parse_unit(text).offset for text in ("(degC)", "degC*1", "degC/s", "1/degC", "degF^1")]
    assert offsets == [0.0] * 5


def test_only_levels_take_the_offset() -> None:
    celsius = parse_unit("degC")
    assert celsius.to_si(20.0) == 293.15
    assert celsius.from_si(293.15) == pytest.approx(20.0, abs=1e-12)
    assert celsius.delta_to_si(0.2) == 0.2
    assert celsius.delta_from_si(0.2) == 0.2
    assert parse_unit("degF").to_si(32.0) == pytest.approx(273.15, abs=1e-10)


@pytest.mark.parametrize(
    "text",
    [
        "furlongs_per_fortnight_x", "2 m", "m^", "m^99", "m^1e9", "10^(10^10)", "m/(s", "m)", "m//s", "/s", "m*", "dB",
        "USD", "bit", "pixel", "__class__", "m.s", "sqrt", "sqrt()", "m;s", "m\ns/", "x" * 65, "((((((((((", "K-1", "☃",
    ],
)  # fmt: skip
def test_what_is_no_unit(text: str) -> None:
    begun = time.monotonic()
    with pytest.raises(BadData, match="unit"):
        parse_unit(text)
    assert time.monotonic() - begun < 2.0


def test_dimensions_multiply() -> None:
    speed = parse_unit("km/h").dimension
    assert speed.times(TIME) == parse_unit("inch").dimension
    assert speed.per(speed) == NO_DIMENSION
    assert speed.power(Fraction(1, 2)) == parse_unit("sqrt(m/s)").dimension
    assert str(speed) == "m/s"
    assert parse_unit("rad/s").dimension == parse_unit("1/s").dimension


@given(st.floats(-1e9, 1e9), st.sampled_from(["degC", "cm", "kW", "%", "degF", "l/min"]))
def test_there_and_back(value: float, text: str) -> None:
    unit = parse_unit(text)
    assert unit.from_si(unit.to_si(value)) == pytest.approx(value, rel=1e-12, abs=1e-9)


@given(st.text(alphabet="mskKWV0123456789^*/()·-. %°", max_size=30))
def test_no_text_does_more_than_fail(text: str) -> None:
    try:
        unit = parse_unit(text)
    except BadData as error:
        assert error.reason == "unit"
    else:
        assert unit.factor > 0
