"""Expressions: arithmetic comes through with its units and columns, everything else of Python is refused."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire.errors import BadData
from wire.expressions import (
    FUNCTIONS,
    Binary,
    Call,
    Compare,
    Every,
    Flaw,
    Negative,
    Number,
    Symbol,
    evaluate,
    holds,
    parse,
    parse_condition,
    signed_sqrt,
    symbols,
)


def kelvin(value: float, unit: str) -> float:
    """The only two units these tests know."""
    return {"K": value, "degC": value + 273.15}[unit]


def test_a_right_hand_side_becomes_a_tree() -> None:
    tree = parse("(P_heat - 300[W/K]*(T_wall - T_water)) / C_wall")
    assert isinstance(tree, Binary)
    assert tree.operator == "/"
    assert tree.right == Symbol("C_wall", 41)
    assert [symbol.name for symbol in symbols(tree)] == ["P_heat", "T_wall", "T_water", "C_wall"]
    heat = tree.left
    assert isinstance(heat, Binary)
    assert isinstance(heat.right, Binary)
    assert heat.right.left == Number(300.0, "W/K", 10)


def test_units_keep_their_own_grammar() -> None:
    assert parse("1.5e-3 [cm^3/s/sqrt(s)]") == Number(1.5e-3, "cm^3/s/sqrt(s)", 0)
    assert parse("-5[%]") == Negative(Number(5.0, "%", 1), 0)
    assert parse("  20[°C]") == Number(20.0, "°C", 2)
    assert parse("3[K]*4[s] + 5[K*s]") == Binary(
        "+",
        Binary("*", Number(3.0, "K", 0), Number(4.0, "s", 5), 0),
        Number(5.0, "K*s", 12),
        0,
    )


def test_conditions() -> None:
    tree = parse_condition("point.T1 < 95[degC] and not 2 < x <= 3")
    assert isinstance(tree, Every)
    assert tree.parts[0] == Compare("<", Symbol("point.T1", 0), Number(95.0, "degC", 11), 0)
    assert holds(tree, {"point.T1": 300.0, "x": 2.0}, kelvin)
    assert not holds(tree, {"point.T1": 369.0, "x": 2.0}, kelvin)
    assert not holds(tree, {"point.T1": 300.0, "x": 3.0}, kelvin)
    assert holds(parse_condition("x > 1 or x < -1"), {"x": -2.0}, kelvin)


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("__import__('os').system('x')", 0),
        ("x.y.z", 0),
        ("().__class__", 0),
        ("open('f')", 0),
        ("lambda: 1", 0),
        ("[x for x in y]", 0),
        ("a if b else c", 0),
        ("f'{x}'", 0),
        ("(x := 3)", 1),
        ("x == 3", 0),
        ("x in y", 0),
        ("True + 1", 0),
        ("'text'", 0),
        ("1j", 0),
        ("...", 0),
        ("x[0]", 1),
        ("x[K]", 1),
        ("3[]", 2),
        ("2 ^ 3", 0),
        ("x % 2", 0),
        ("x // 2", 0),
        ("x @ y", 0),
        ("~x", 0),
        ("sqrt(1, 2)", 0),
        ("sqrt(x=1)", 0),
        ("sqrt(*x)", 5),
        ("foo(1)", 0),
        ("sqrt.real(1)", 0),
        ("1 + (2 < 3)", 5),
        ("min(1 < 2, 3)", 4),
        ("1e999", 0),
        ("_x", 0),
        ("x; y", 1),
        ("", 0),
        ("x +", 0),
        ("x # y", 2),
        ("ä + 1", 0),
        ("x\ty", 1),
        ("1" * 5000, 0),
        ("(" * 500 + "1" + ")" * 500, 0),
        ("-" * 1999 + "1", 0),
        ("1" + "+1" * 200, 0),
        ("a" * 64, 0),
    ],
)
def test_everything_else_is_refused(text: str, at: int) -> None:
    with pytest.raises(Flaw) as refused:
        parse(text)
    if len(text) < 40:
        assert refused.value.at == at


def test_a_condition_is_no_number_and_the_reverse() -> None:
    with pytest.raises(Flaw):
        parse("x < 3")
    with pytest.raises(Flaw):
        parse_condition("x + 3")


def test_the_flaw_says_where() -> None:
    with pytest.raises(Flaw) as refused:
        parse("  1 + foo(x)")
    assert refused.value.at == 6
    assert "foo" in refused.value.detail


@pytest.mark.parametrize("text", ["1/x", "log(x)", "sqrt(x - 1)", "exp(1e9)", "(x - 1)**0.5", "x**-1", "1e308*1e308"])
def test_undefined_is_said_not_guessed(text: str) -> None:
    with pytest.raises(BadData, match="undefined"):
        evaluate(parse(text), {"x": 0.0}, kelvin)


def test_an_unknown_name_is_never_true_or_false() -> None:
    with pytest.raises(BadData, match="unknown"):
        holds(parse_condition("x < 3 or y < 3"), {"x": 1.0}, kelvin)


def test_a_nan_never_satisfies_a_condition() -> None:
    with pytest.raises(BadData, match="undefined"):
        holds(parse_condition("not x > 3"), {"x": math.nan}, kelvin)


def test_every_function_computes() -> None:
    for name, (arity, meaning) in FUNCTIONS.items():
        arguments = (0.5, 2.0)[:arity]
        call = Call(name, tuple(Number(value) for value in arguments))
        assert evaluate(call, {}, kelvin) == meaning(*arguments)


def test_the_signed_root_is_a_root_with_a_finite_slope() -> None:
    assert signed_sqrt(12.4, 0.01) == pytest.approx(math.sqrt(12.4), rel=1e-6)
    assert signed_sqrt(-12.4, 0.01) == -signed_sqrt(12.4, 0.01)
    assert signed_sqrt(1e-9, 0.01) / 1e-9 == pytest.approx(10.0, rel=1e-6)


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6), st.floats(0.1, 10.0))
def test_values_are_pythons(a: float, b: float, c: float) -> None:
    text = "a*b - 2*(a + b)/c + c**2 - min(a, b)"
    expected = a * b - 2 * (a + b) / c + math.pow(c, 2) - min(a, b)
    assert evaluate(parse(text), {"a": a, "b": b, "c": c}, kelvin) == expected


@given(st.text(max_size=60))
def test_no_text_does_more_than_fail(text: str) -> None:
    try:
        parse(text)
    except Flaw as flaw:
        assert 0 <= flaw.at <= max(1, len(text))
