"""Expressions in configuration: read against an allow-list, never executed as code.

The grammar is the arithmetic part of Python's: ``+ - * / **``, comparisons, ``and or not``, a short list of
functions, names, and numbers that may carry a unit: ``(P_heat - 300[W/K]*(T_wall - T_water)) / C_wall``. ``parse``
gives a tree of frozen nodes. The cloud turns trees into symbolic mathematics; the edge evaluates them on local values.
Angles are in radians. An offset unit takes its offset: ``95[degC]`` is a level, a difference is written in kelvin.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from operator import add, mul, sub, truediv
from types import MappingProxyType
from typing import Literal

from wire.errors import BadData
from wire.points import SYMBOL_PATTERN

MAX_CHARACTERS = 2_000
MAX_DEPTH = 100

Arithmetic = Literal["+", "-", "*", "/", "**"]
Comparison = Literal["<", "<=", ">", ">="]


@dataclass(frozen=True, slots=True)
class Number:
    """A literal; ``unit`` is the text in brackets, None for a plain number. ``at`` is the column in the source."""

    value: float
    unit: str | None = None
    at: int = 0


@dataclass(frozen=True, slots=True)
class Symbol:
    """A name, possibly dotted (``point.T1``)."""

    name: str
    at: int = 0


@dataclass(frozen=True, slots=True)
class Negative:
    of: Expression
    at: int = 0


@dataclass(frozen=True, slots=True)
class Binary:
    operator: Arithmetic
    left: Expression
    right: Expression
    at: int = 0


@dataclass(frozen=True, slots=True)
class Call:
    function: str
    arguments: tuple[Expression, ...]
    at: int = 0


@dataclass(frozen=True, slots=True)
class Compare:
    operator: Comparison
    left: Expression
    right: Expression
    at: int = 0


@dataclass(frozen=True, slots=True)
class Not:
    of: Condition
    at: int = 0


@dataclass(frozen=True, slots=True)
class Every:
    """True if all parts are (``any_of`` False) or if one is (``any_of`` True)."""

    parts: tuple[Condition, ...]
    any_of: bool
    at: int = 0


Expression = Number | Symbol | Negative | Binary | Call
"""Has a numeric value."""
Condition = Compare | Not | Every
"""Holds or does not."""


def signed_sqrt(x: float, width: float) -> float:
    """sqrt(x) for x well above ``width``, its mirror image below, smooth between: Torricelli's law with a slope that
    stays finite when the tank runs dry."""
    return float(x / (x * x + width * width) ** 0.25)


FUNCTIONS: Mapping[str, tuple[int, Callable[..., float]]] = MappingProxyType(
    {
        "sqrt": (1, math.sqrt),
        "exp": (1, math.exp),
        "log": (1, math.log),
        "sin": (1, math.sin),
        "cos": (1, math.cos),
        "tan": (1, math.tan),
        "tanh": (1, math.tanh),
        "atan2": (2, math.atan2),
        "abs": (1, abs),
        "min": (2, min),
        "max": (2, max),
        "signed_sqrt": (2, signed_sqrt),
    }
)
"""Name -> (number of arguments, meaning)."""

_ARITHMETIC: Mapping[type[ast.operator], Arithmetic] = MappingProxyType(
    {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.Pow: "**"}
)
_COMPARISON: Mapping[type[ast.cmpop], Comparison] = MappingProxyType(
    {ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">="}
)
_COMBINE: Mapping[Arithmetic, Callable[[float, float], float]] = MappingProxyType(
    {"+": add, "-": sub, "*": mul, "/": truediv, "**": math.pow}
)
_QUANTITY = re.compile(r"\[([^\[\]]*)\]")
_SYMBOL = re.compile(SYMBOL_PATTERN)


class Flaw(BadData):
    """An expression that cannot be read; ``at`` is the column of the defect, from 0."""

    def __init__(self, detail: str, at: int) -> None:
        super().__init__("expression", detail)
        self.at = at


def parse(text: str) -> Expression:
    """Read an expression with a numeric value; raises Flaw."""
    node = _read(text)
    if not isinstance(node, Expression):
        raise Flaw("a number is expected here, not a condition", 0)
    return node


def parse_condition(text: str) -> Condition:
    """Read an expression that holds or does not; raises Flaw."""
    node = _read(text)
    if not isinstance(node, Condition):
        raise Flaw("a comparison is expected here", 0)
    return node


def _read(text: str) -> Expression | Condition:
    if len(text) > MAX_CHARACTERS:
        raise Flaw(f"{len(text)} characters, at most {MAX_CHARACTERS}", 0)
    if "\n" in text:
        text = text.replace("\n", " ")
    units = {match.start(): match[1].strip() for match in _QUANTITY.finditer(text)}
    # units have a grammar of their own; a blank zero of the same width keeps every column where it is
    plain = _QUANTITY.sub(lambda match: "[" + "0".rjust(len(match[1])) + "]" if match[1] else "[]", text)
    for at, character in enumerate(plain):
        if not " " <= character <= "~" or character == "#":
            raise Flaw(f"unexpected character {character!r}", at)
    lead = len(plain) - len(plain.lstrip())
    try:
        tree = ast.parse(plain[lead:], mode="eval")
    except SyntaxError as error:
        raise Flaw("not an expression", lead + max(0, (error.offset or 1) - 1)) from None
    except (ValueError, RecursionError, MemoryError):
        raise Flaw("not an expression", 0) from None
    return _Builder(units, lead).node(tree.body, 0)


class _Builder:
    """Walks Python's tree and lets through what is on the list."""

    def __init__(self, units: Mapping[int, str], lead: int) -> None:
        self._units = units
        self._lead = lead

    def node(self, node: ast.expr, depth: int) -> Expression | Condition:
        at = node.col_offset + self._lead
        if depth > MAX_DEPTH:
            raise Flaw(f"nested deeper than {MAX_DEPTH} levels", at)
        if isinstance(node, ast.Compare):
            return self._compare(node, at, depth)
        if isinstance(node, ast.BoolOp):
            parts = tuple(self._condition(part, depth) for part in node.values)
            return Every(parts, isinstance(node.op, ast.Or), at)
        if isinstance(node, ast.UnaryOp):
            return self._unary(node, at, depth)
        if isinstance(node, ast.BinOp):
            return self._binary(node, at, depth)
        if isinstance(node, ast.Call):
            return self._call(node, at, depth)
        return self._leaf(node, at)

    def _leaf(self, node: ast.expr, at: int) -> Expression:
        if isinstance(node, ast.Constant):
            return Number(self._number(node, at), None, at)
        if isinstance(node, ast.Subscript):
            return self._quantity(node, at)
        if isinstance(node, ast.Name) and _SYMBOL.match(node.id):
            return Symbol(node.id, at)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            return Symbol(f"{node.value.id}.{node.attr}", at)
        raise Flaw("only numbers, names, + - * / ** and known functions are allowed", at)

    def _number(self, node: ast.Constant, at: int) -> float:
        if isinstance(node.value, bool) or not isinstance(node.value, int | float):
            raise Flaw(f"{node.value!r} is not a number", at)
        try:
            value = float(node.value)
        except OverflowError:
            value = math.inf
        if not math.isfinite(value):
            raise Flaw("the number is too large", at)
        return value

    def _quantity(self, node: ast.Subscript, at: int) -> Number:
        bracket = (node.value.end_col_offset or 0) + self._lead
        bracket = min((start for start in self._units if start >= bracket), default=bracket)
        if not isinstance(node.value, ast.Constant):
            raise Flaw("a unit in brackets belongs directly behind a number, as in 300[W/K]", bracket)
        return Number(self._number(node.value, at), self._units[bracket], at)

    def _unary(self, node: ast.UnaryOp, at: int, depth: int) -> Expression | Condition:
        if isinstance(node.op, ast.Not):
            return Not(self._condition(node.operand, depth), at)
        if isinstance(node.op, ast.USub):
            return Negative(self._expression(node.operand, depth), at)
        if isinstance(node.op, ast.UAdd):
            return self._expression(node.operand, depth)
        raise Flaw("operator ~ is not used here", at)

    def _binary(self, node: ast.BinOp, at: int, depth: int) -> Expression:
        operator = _ARITHMETIC.get(type(node.op))
        if operator is None:
            power = isinstance(node.op, ast.BitXor)
            raise Flaw("powers are written **" if power else "only + - * / ** are used here", at)
        return Binary(operator, self._expression(node.left, depth), self._expression(node.right, depth), at)

    def _call(self, node: ast.Call, at: int, depth: int) -> Expression:
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if name not in FUNCTIONS:
            raise Flaw(f"unknown function{f' {name}' if name else ''}; there are {', '.join(FUNCTIONS)}", at)
        arity = FUNCTIONS[name][0]
        if node.keywords or len(node.args) != arity:
            raise Flaw(f"{name} takes {arity} argument{'s' if arity > 1 else ''}", at)
        return Call(name, tuple(self._expression(argument, depth) for argument in node.args), at)

    def _compare(self, node: ast.Compare, at: int, depth: int) -> Condition:
        sides = [self._expression(side, depth) for side in (node.left, *node.comparators)]
        parts: list[Condition] = []
        for operator, left, right in zip(node.ops, sides, sides[1:], strict=False):
            if (sign := _COMPARISON.get(type(operator))) is None:
                raise Flaw("measured values are compared with < <= > >=, never for equality", at)
            parts.append(Compare(sign, left, right, at))
        return parts[0] if len(parts) == 1 else Every(tuple(parts), any_of=False, at=at)

    def _expression(self, node: ast.expr, depth: int) -> Expression:
        found = self.node(node, depth + 1)
        if not isinstance(found, Expression):
            raise Flaw("a number is expected here, not a condition", found.at)
        return found

    def _condition(self, node: ast.expr, depth: int) -> Condition:
        found = self.node(node, depth + 1)
        if not isinstance(found, Condition):
            raise Flaw("a comparison is expected here", found.at)
        return found


def children(node: Expression | Condition) -> tuple[Expression | Condition, ...]:
    """The direct parts of a node, left to right."""
    match node:
        case Number() | Symbol():
            return ()
        case Negative(of=of) | Not(of=of):
            return (of,)
        case Binary(left=left, right=right) | Compare(left=left, right=right):
            return (left, right)
        case Call(arguments=arguments):
            return arguments
        case Every(parts=parts):
            return parts


def symbols(node: Expression | Condition) -> Iterator[Symbol]:
    """Every use of a name, left to right."""
    if isinstance(node, Symbol):
        yield node
    for part in children(node):
        yield from symbols(part)


def evaluate(node: Expression, values: Mapping[str, float], to_unit: Callable[[float, str], float]) -> float:
    """The value of an expression; ``to_unit(number, unit)`` turns a literal with a unit into the unit of ``values``.

    Raises BadData: ``unknown`` for a name without a value, ``undefined`` for 1/0, log(-1), overflow or a NaN.
    """
    try:
        value = _value(node, values, to_unit)
    except (ValueError, ArithmeticError) as error:
        raise BadData("undefined", str(error)) from None
    if not math.isfinite(value):
        raise BadData("undefined", "the result is not a finite number")
    return float(value)


def holds(node: Condition, values: Mapping[str, float], to_unit: Callable[[float, str], float]) -> bool:
    """Whether a condition holds; what ``evaluate`` raises, because an unknown is never taken for true or false."""
    match node:
        case Compare(operator=operator, left=left, right=right):
            a, b = evaluate(left, values, to_unit), evaluate(right, values, to_unit)
            return {"<": a < b, "<=": a <= b, ">": a > b, ">=": a >= b}[operator]
        case Not(of=of):
            return not holds(of, values, to_unit)
        case Every(parts=parts, any_of=any_of):
            results = [holds(part, values, to_unit) for part in parts]
            return any(results) if any_of else all(results)


def _value(node: Expression, values: Mapping[str, float], to_unit: Callable[[float, str], float]) -> float:
    match node:
        case Number(value=value, unit=unit):
            return value if unit is None else to_unit(value, unit)
        case Symbol(name=name):
            if name not in values:
                raise BadData("unknown", f"no value for {name}")
            return values[name]
        case Negative(of=of):
            return -_value(of, values, to_unit)
        case Call(function=function, arguments=arguments):
            return FUNCTIONS[function][1](*(_value(each, values, to_unit) for each in arguments))
        case Binary(operator=operator, left=left, right=right):
            return _COMBINE[operator](_value(left, values, to_unit), _value(right, values, to_unit))
