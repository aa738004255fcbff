"""Lowered programs: the same numbers as the evaluator at the edge, exact constants, exact slopes, no cross-talk."""

from __future__ import annotations

import numpy as np
import pytest
import sympy as sp
from hypothesis import given
from hypothesis import strategies as st

from cloud.twins.lower import Program, lower
from cloud.twins.symbolic import Meaning, translate
from wire.expressions import Flaw, evaluate, parse
from wire.units import NO_DIMENSION, parse_unit

A, B = sp.Symbol("a", real=True), sp.Symbol("b", real=True)
NAMES = {"a": Meaning(A, NO_DIMENSION), "b": Meaning(B, NO_DIMENSION)}
METRES = {"a": Meaning(A, parse_unit("m").dimension), "b": Meaning(B, parse_unit("s").dimension)}
NONE = np.zeros((1, 0))

TEXTS = [
    "a + b", "a - b*2", "-a", "a/b", "a**2", "a**3 + b**-1", "a**0.5", "a**-0.5", "a**1.25", "a**7.3", "a**9",
    "a**-2.5", "sqrt(a)", "exp(-a)", "log(a)", "sin(a)", "cos(b)", "tan(a)", "tanh(a)", "atan2(a, b)", "abs(a - b)",
    "min(a, b)", "max(a - 1, 0)", "min(min(a, b), 1)", "signed_sqrt(a - b, 0.1)", "3", "0", "1/3*a",
    "a*exp(a)/b**2 + sin(a*b)",
]  # fmt: skip


def program(text: str, *, slope: bool = False) -> Program:
    value = translate(parse(text), NAMES).value
    return lower(sp.Array([sp.diff(value, A)] if slope else [value]), [A, B])


def run(code: Program, a: float, b: float) -> float:
    return float(code(np.array([[a, b]]), NONE, NONE)[0, 0])


@pytest.mark.parametrize("text", TEXTS)
def test_values_are_those_of_the_evaluator(text: str) -> None:
    for a, b in ((0.7, 1.9), (2.3, 0.4), (1.0, 3.0)):
        expected = evaluate(parse(text), {"a": a, "b": b}, lambda value, unit: value)
        assert run(program(text), a, b) == pytest.approx(expected, rel=1e-14, abs=1e-15)


@pytest.mark.parametrize("text", TEXTS)
def test_slopes_are_those_of_the_values(text: str) -> None:
    code, slope, h = program(text), program(text, slope=True), 1e-5
    for a, b in ((0.7, 1.9), (2.3, 0.4), (1.5, 3.0)):
        expected = (run(code, a + h, b) - run(code, a - h, b)) / (2 * h)
        assert run(slope, a, b) == pytest.approx(expected, rel=1e-6, abs=1e-8)


@given(st.floats(1e-12, 1e12))
def test_constants_keep_every_bit(value: float) -> None:
    code = lower(sp.Array([sp.Float(value) * A]), [A])
    assert code(np.array([[1.0]]), NONE, NONE)[0, 0] == value


def test_equal_parts_are_computed_once() -> None:
    code = program("sin(a*b) + sin(a*b)**2 + exp(sin(a*b))")
    assert sum(step.operation is np.sin for step in code.steps) == 1


@pytest.mark.parametrize("text", TEXTS)
def test_bits_do_not_depend_on_neighbours_or_on_how_memory_is_laid_out(text: str) -> None:
    """numpy takes another path, with other last bits, for reversed columns of exp, log, tan, atan2 and powers."""
    x = np.random.default_rng(3).uniform(0.01, 3.0, (1001, 2))
    for code in (program(text), program(text, slope=True)):
        expected = code(x, np.zeros((1001, 0)), np.zeros((1001, 0)))
        for rows in (slice(None, None, -1), slice(3, 900, 7), slice(500, 501), slice(1, 18)):
            part = x[rows]
            found = code(part, np.zeros((len(part), 0)), np.zeros((len(part), 0)))
            assert np.array_equal(found, expected[rows], equal_nan=True)
    wide = np.asfortranarray(x)[::-1]
    assert np.array_equal(
        program(text)(wide, np.zeros((1001, 0)), np.zeros((1001, 0))),
        program(text)(x, np.zeros((1001, 0)), np.zeros((1001, 0)))[::-1],
        equal_nan=True,
    )


def test_a_program_survives_a_bad_row_alone() -> None:
    found = program("log(a)/b")(np.array([[1.0, 2.0], [-1.0, 0.0], [np.e, 1.0]]), np.zeros((3, 0)), np.zeros((3, 0)))
    assert found[0, 0] == 0.0
    assert not np.isfinite(found[1, 0])
    assert found[2, 0] == 1.0


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("a + b", 0),
        ("a + 1", 0),
        ("a - 2[s]", 0),
        ("1 + sin(a)", 4),
        ("a**b", 0),
        ("a**2[s]", 0),
        ("min(a, b)", 0),
        ("signed_sqrt(a, 1[s])", 0),
        ("2[parsec_x]", 0),
        ("c + a", 0),
        ("exp(a/1[s])", 0),
    ],
)
def test_dimensions_that_do_not_fit(text: str, at: int) -> None:
    with pytest.raises(Flaw) as refused:
        translate(parse(text), METRES)
    assert refused.value.at == at


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        ("a*b", "m*s"),
        ("a/b + 2[m/s]", "m/s"),
        ("a + 0", "m"),
        ("sqrt(a)", "m^0.5"),
        ("a**-2", "1/m^2"),
        ("max(a, 0)", "m"),
        ("signed_sqrt(a, 1[cm])", "m^0.5"),
        ("atan2(a, 2*a)", "1"),
        ("sin(a/1[m])", "1"),
        ("abs(a)*3", "m"),
    ],
)
def test_dimensions_follow_the_arithmetic(text: str, unit: str) -> None:
    assert translate(parse(text), METRES).dimension == parse_unit(unit).dimension
