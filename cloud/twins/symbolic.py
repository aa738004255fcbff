"""From expression trees to symbolic mathematics in SI, checking dimensions on the way."""

# mypy: allow-untyped-calls
from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import NamedTuple

import sympy as sp

from wire.errors import BadData
from wire.expressions import Binary, Call, Expression, Flaw, Negative, Number, Symbol
from wire.units import NO_DIMENSION, Dimension, parse_unit


class Meaning(NamedTuple):
    """A symbolic value in SI; ``dimension`` None fits every dimension (a plain 0, or a name whose unit is unknown)."""

    value: sp.Expr
    dimension: Dimension | None


Names = Mapping[str, Meaning]

_FUNCTIONS = {
    "exp": sp.exp,
    "log": sp.log,
    "sin": sp.sin,
    "cos": sp.cos,
    "tan": sp.tan,
    "tanh": sp.tanh,
}
"""Functions of one plain number."""
_ALIKE = {
    "min": sp.Min,
    "max": sp.Max,
    "atan2": sp.atan2,
    "signed_sqrt": lambda x, w: x / (x**2 + w**2) ** sp.Rational(1, 4),
}
"""Functions of two values of one dimension."""


def translate(node: Expression, names: Names) -> Meaning:
    """The meaning of an expression; raises Flaw for an unknown name, an unknown unit or dimensions that do not fit."""
    match node:
        case Number():
            return _number(node)
        case Symbol(name=name, at=at):
            if name not in names:
                raise Flaw(f"unknown name {name}; there are {', '.join(names)}", at)
            return names[name]
        case Negative(of=of):
            inner = translate(of, names)
            return Meaning(-inner.value, inner.dimension)
        case Call():
            return _call(node, names)
        case Binary(operator="**"):
            return _power(node, names)
        case Binary():
            return _binary(node, translate(node.left, names), translate(node.right, names))


def _number(node: Number) -> Meaning:
    if node.unit is None:
        value = sp.Integer(int(node.value)) if node.value.is_integer() else sp.Float(node.value)
        return Meaning(value, NO_DIMENSION if node.value else None)
    try:
        unit = parse_unit(node.unit)
    except BadData as error:
        raise Flaw(error.detail, node.at) from None
    return Meaning(sp.Float(unit.to_si(node.value)), unit.dimension)


def _binary(node: Binary, left: Meaning, right: Meaning) -> Meaning:
    a, b = left.dimension, right.dimension
    if node.operator == "*":
        return Meaning(left.value * right.value, None if a is None or b is None else a.times(b))
    if node.operator == "/":
        return Meaning(left.value / right.value, None if a is None or b is None else a.per(b))
    if a is not None and b is not None and a != b:
        raise Flaw(f"{a} {node.operator} {b}: only values of one dimension are added", node.at)
    value = left.value + right.value if node.operator == "+" else left.value - right.value
    return Meaning(value, b if a is None else a)


def _power(node: Binary, names: Names) -> Meaning:
    base = translate(node.left, names)
    exponent = node.right.of if isinstance(node.right, Negative) else node.right
    if not isinstance(exponent, Number) or exponent.unit is not None:
        raise Flaw("an exponent must be a plain number", node.at)
    power = Fraction(str(exponent.value)) * (-1 if isinstance(node.right, Negative) else 1)
    dimension = None if base.dimension is None else base.dimension.power(power)
    return Meaning(base.value ** sp.Rational(power.numerator, power.denominator), dimension)


def _call(node: Call, names: Names) -> Meaning:
    arguments = [translate(argument, names) for argument in node.arguments]
    first = arguments[0]
    if node.function == "sqrt":
        return Meaning(sp.sqrt(first.value), None if first.dimension is None else first.dimension.power(Fraction(1, 2)))
    if node.function == "abs":
        return Meaning(sp.Abs(first.value), first.dimension)
    if node.function in _FUNCTIONS:
        if first.dimension not in (None, NO_DIMENSION):
            raise Flaw(f"{node.function} needs a plain number, this is in {first.dimension}", node.at)
        return Meaning(_FUNCTIONS[node.function](first.value), NO_DIMENSION)
    known = [argument.dimension for argument in arguments if argument.dimension is not None]
    if len(set(known)) > 1:
        raise Flaw(f"{node.function} compares {known[0]} with {known[1]}", node.at)
    shared = known[0] if known else None
    value = _ALIKE[node.function](*(argument.value for argument in arguments))
    if node.function == "atan2":
        shared = NO_DIMENSION
    if node.function == "signed_sqrt" and shared is not None:
        shared = shared.power(Fraction(1, 2))
    return Meaning(value, shared)
