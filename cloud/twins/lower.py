"""From symbolic mathematics to numpy: a straight list of elementwise operations over stacked columns.

Every operation works on whole contiguous columns and no row meets another, so a row's result does not depend, to the
last bit, on how many rows there are. Constants keep all their bits, which sympy's own code printer does not promise.
"""

# mypy: allow-untyped-calls
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import Any, NamedTuple, cast

import numpy as np
import sympy as sp

from cloud.twins.model import Floats

Operation = Callable[..., Any]


class Step(NamedTuple):
    """One operation; its result becomes the next register."""

    operation: Operation
    operands: tuple[int, ...]


@dataclass(frozen=True)
class Program:
    """A function of stacked states, inputs and parameters. Registers: columns, then constants, then results of steps.

    ``outputs`` puts registers into an array of shape (N, *shape) of zeros.
    """

    shape: tuple[int, ...]
    constants: tuple[float, ...]
    steps: tuple[Step, ...]
    outputs: tuple[tuple[tuple[int, ...], int], ...]

    def __call__(self, x: Floats, u: Floats, p: Floats, /) -> Floats:
        # contiguous columns: numpy may take another code path, with other last bits, for strided ones
        registers: list[Any] = list(np.ascontiguousarray(np.concatenate([x, u, p], axis=1).T))
        registers.extend(self.constants)
        out: Floats = np.zeros((len(x), *self.shape))
        with np.errstate(all="ignore"):
            for operation, operands in self.steps:
                registers.append(operation(*[registers[operand] for operand in operands]))
        for place, register in self.outputs:
            index: tuple[slice | int, ...] = (slice(None), *place)
            out[index] = registers[register]
        return out


def lower(expressions: sp.NDimArray, columns: Sequence[sp.Symbol]) -> Program:
    """An array of expressions of ``columns`` (states, inputs, parameters in this order) as a program."""
    shape = tuple(int(size) for size in expressions.shape)
    places = [place for place in np.ndindex(shape) if expressions[place] != 0]
    constants = {number: 0 for place in places for number in _numbers(expressions[place])}
    for register, number in enumerate(sorted(constants), start=len(columns)):
        constants[number] = register
    builder = _Builder(
        {symbol: register for register, symbol in enumerate(columns)}, constants, len(columns) + len(constants)
    )
    outputs = tuple((place, builder.register(expressions[place])) for place in places)
    return Program(shape, tuple(sorted(constants)), tuple(builder.steps), outputs)


_FUNCTIONS: dict[Any, Operation] = {
    sp.exp: np.exp,
    sp.log: np.log,
    sp.sin: np.sin,
    sp.cos: np.cos,
    sp.tan: np.tan,
    sp.tanh: np.tanh,
    sp.atan2: np.arctan2,
    sp.Abs: np.abs,
    sp.sign: np.sign,
    sp.Min: np.minimum,
    sp.Max: np.maximum,
}
_MAX_INTEGER_POWER = 8


@dataclass
class _Builder:
    """Numbers the registers; equal subexpressions share one."""

    known: dict[sp.Expr, int]
    constants: dict[float, int]
    next: int
    steps: list[Step] = field(default_factory=list)

    def register(self, expression: sp.Expr) -> int:
        if expression not in self.known:
            self.known[expression] = self._build(expression)
        return self.known[expression]

    def _build(self, expression: sp.Expr) -> int:
        if isinstance(expression, sp.Number):
            return self.constants[float(expression)]
        if isinstance(expression, sp.Pow):
            return self._power(expression.base, expression.exp)
        parts = [self.register(part) for part in _ordered(expression)]
        if isinstance(expression, sp.Heaviside):
            return self._step(_heaviside, parts[0])
        if isinstance(expression, sp.Add | sp.Mul):
            operation: Operation = np.add if isinstance(expression, sp.Add) else np.multiply
        else:
            operation = _FUNCTIONS[expression.func]
        if len(parts) == 1:
            return self._step(operation, parts[0])
        return reduce(lambda left, right: self._step(operation, left, right), parts)

    def _power(self, base: sp.Expr, exponent: sp.Expr) -> int:
        """Whole powers by multiplication and halves and quarters by square roots, which are correctly rounded."""
        if exponent.is_negative:
            positive = self.register(base if exponent == -1 else sp.Pow(base, -exponent, evaluate=False))
            return self._step(np.reciprocal, positive)
        whole, quarters = divmod(exponent * 4, 4) if exponent.is_Rational else (exponent, sp.Integer(-1))
        if not (quarters.is_Integer and quarters >= 0 and 0 <= whole <= _MAX_INTEGER_POWER):
            return self._step(np.power, self.register(base), self.register(exponent))
        factors = [self.register(base)] * int(whole)
        if quarters:
            root = self._step(np.sqrt, self.register(base))
            factors += [root] if quarters >= 2 else []
            factors += [self._step(np.sqrt, root)] if quarters % 2 else []
        return reduce(lambda left, right: self._step(np.multiply, left, right), factors)

    def _step(self, operation: Operation, *operands: int) -> int:
        self.steps.append(Step(operation, operands))
        self.next += 1
        return self.next - 1


def _ordered(expression: sp.Expr) -> Sequence[sp.Expr]:
    """Arguments in an order that depends on the expression alone, so that sums round the same way in every process."""
    if isinstance(expression, sp.Add | sp.Mul | sp.Min | sp.Max):
        return sorted(cast("Sequence[sp.Expr]", expression.args), key=sp.default_sort_key)
    return cast("Sequence[sp.Expr]", expression.args)


def _numbers(expression: sp.Expr) -> set[float]:
    return {float(node) for node in expression.atoms(sp.Number)}


def _heaviside(value: Floats) -> Floats:
    """0 below, 1 above, 1/2 at zero: the slope of max(x, 0)."""
    return np.heaviside(value, 0.5)
