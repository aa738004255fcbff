"""Units as people write them, and the way to SI and back. The only module that knows pint.

A unit is a product of names with small powers: ``degC``, ``cm^3/s``, ``W/(m^2*K)``, ``degC/sqrt(s)``, ``%``. We parse
that grammar ourselves and ask pint only for single names, so hostile text can cost nothing. An offset (degC, degF)
exists only where the name stands alone: ``kJ/degC`` and ``degC/s`` speak of differences.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, lru_cache
from itertools import product
from math import isclose
from typing import NamedTuple

import pint

from wire.errors import BadData

MAX_CHARACTERS = 64

_BASE = ("m", "kg", "s", "A", "K", "mol", "cd")
_PINT_BASE = ("meter", "kilogram", "second", "ampere", "kelvin", "mole", "candela")
_DERIVED = {
    "W": (2, 1, -3, 0, 0, 0, 0),
    "J": (2, 1, -2, 0, 0, 0, 0),
    "N": (1, 1, -2, 0, 0, 0, 0),
    "Pa": (-1, 1, -2, 0, 0, 0, 0),
    "V": (2, 1, -3, -1, 0, 0, 0),
    "ohm": (2, 1, -3, -2, 0, 0, 0),
}
"""SI units with a name of their own, in exponents of the base units: W/K reads better than kg m^2 s^-3 K^-1."""


class Dimension(NamedTuple):
    """Exponents of m, kg, s, A, K, mol and cd. Angles and counts have none."""

    exponents: tuple[Fraction, ...]

    def times(self, other: Dimension) -> Dimension:
        return Dimension(tuple(a + b for a, b in zip(self.exponents, other.exponents, strict=True)))

    def per(self, other: Dimension) -> Dimension:
        return self.times(other.power(Fraction(-1)))

    def power(self, exponent: Fraction) -> Dimension:
        return Dimension(tuple(each * exponent for each in self.exponents))

    def __str__(self) -> str:
        return _symbol(self, Fraction(0))


NO_DIMENSION = Dimension((Fraction(0),) * len(_BASE))
TIME = Dimension(tuple(Fraction(name == "s") for name in _BASE))


@dataclass(frozen=True, slots=True)
class Unit:
    """One unit: ``si = value * factor + offset``. ``si`` is the same text for all units of one dimension."""

    text: str
    si: str
    factor: float
    offset: float

    @property
    def dimension(self) -> Dimension:
        return _factors(self.si).dimension

    def to_si(self, value: float) -> float:
        """A level: takes the offset."""
        return value * self.factor + self.offset

    def from_si(self, value: float) -> float:
        return (value - self.offset) / self.factor

    def delta_to_si(self, value: float) -> float:
        """A difference, noise, tolerance or standard deviation: never takes the offset."""
        return value * self.factor

    def delta_from_si(self, value: float) -> float:
        return value / self.factor


class _Factors(NamedTuple):
    """A product of units, multiplied out."""

    factor: Fraction
    """Exact for decimal factors, so that cm^3 is 1e-6 and not 1.0000000000000002e-06."""
    dimension: Dimension
    angle: Fraction = Fraction(0)
    offset: float = 0.0

    def times(self, other: _Factors, power: Fraction) -> _Factors:
        return _Factors(
            self.factor * Fraction(other.factor**power),
            self.dimension.times(other.dimension.power(power)),
            self.angle + other.angle * power,
        )


_ONE = _Factors(Fraction(1), NO_DIMENSION)


@lru_cache(maxsize=4096)
def parse_unit(text: str) -> Unit:
    """Read a unit; ``""`` and ``1`` are dimensionless. Raises BadData("unit") if it is unknown or a logarithm."""
    found = _factors(text)
    return Unit(text, _symbol(found.dimension, found.angle), float(found.factor), found.offset)


@lru_cache(maxsize=4096)
def _factors(text: str) -> _Factors:
    if len(text) > MAX_CHARACTERS:
        raise BadData("unit", f"{len(text)} characters, at most {MAX_CHARACTERS}")
    if text.strip() in ("", "1"):
        return _ONE
    return _Parser(text).whole()


_TOKEN = re.compile(r"\s*(?:(?P<name>[^\W\d]\w*|[%°][A-Za-z]?)|(?P<number>\d+(?:\.\d+)?)|(?P<mark>\*\*|[\^*/()·-]))")


class _Parser:
    """product = factor { ("*" | "·" | "/" | space) factor }; factor = (name | "1" | "(" product ")") [power]."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def whole(self) -> _Factors:
        alone = self._text.strip()
        if re.fullmatch(r"[^\W\d]\w*|[%°][A-Za-z]?", alone):
            return _named(alone, self._text)
        found = self._product()
        if self._text[self._at :].strip():
            raise self._refuse()
        return found

    def _product(self) -> _Factors:
        found = _ONE.times(self._factor(), Fraction(1))
        while True:
            if self._take("*") or self._take("·"):
                found = found.times(self._factor(), Fraction(1))
            elif self._take("/"):
                found = found.times(self._factor(), Fraction(-1))
            elif self._text[self._at : self._at + 1].isspace() and self._peek("name"):
                found = found.times(self._factor(), Fraction(1))
            else:
                return found

    def _factor(self) -> _Factors:
        if self._take("("):
            found = self._product()
            self._expect(")")
        elif (name := self._peek("name")) is not None:
            self._advance()
            if name == "sqrt":
                self._expect("(")
                found = _ONE.times(self._product(), Fraction(1, 2))
                self._expect(")")
            else:
                found = _named(name, self._text)
        elif self._peek("number") == "1":
            self._advance()
            found = _ONE
        else:
            raise self._refuse()
        if self._take("^") or self._take("**"):
            return _ONE.times(found, self._power())
        return found

    def _power(self) -> Fraction:
        bracket = self._take("(")
        sign = -1 if self._take("-") else 1
        number = self._peek("number")
        if number is None or len(number) > 4 or abs(Fraction(number)) > 12:
            raise self._refuse()
        self._advance()
        if bracket:
            self._expect(")")
        return sign * Fraction(number)

    def _peek(self, kind: str) -> str | None:
        match = _TOKEN.match(self._text, self._at)
        return match[kind] if match else None

    def _advance(self) -> None:
        match = _TOKEN.match(self._text, self._at)
        self._at = match.end() if match else self._at

    def _take(self, mark: str) -> bool:
        taken = self._peek("mark") == mark
        if taken:
            self._advance()
        return taken

    def _expect(self, mark: str) -> None:
        if not self._take(mark):
            raise self._refuse()

    def _refuse(self) -> BadData:
        return BadData("unit", f"{self._text!r} cannot be read as a unit (at character {self._at + 1})")


@cache
def _registry() -> pint.UnitRegistry[float]:
    return pint.UnitRegistry(cache_folder=None, on_redefinition="raise")


def _named(name: str, text: str) -> _Factors:
    """One name, asked of pint. Only a name that stands alone keeps its offset: ``times`` drops it."""
    registry = _registry()
    try:
        unit = registry.parse_units(name)
        offset = float(registry.Quantity(0.0, unit).to_base_units().magnitude)
        # pint's own delta unit, because 274.15 - 273.15 loses digits
        one = registry.Quantity(1.0, f"delta_{unit}" if offset else unit).to_base_units()
        powers = {base: Fraction(str(power)) for base, power in one.unit_items()}
    except (pint.PintError, AttributeError, ValueError, ArithmeticError) as error:
        raise BadData("unit", f"{text!r}: unknown unit {name!r}") from error
    angle = powers.pop("radian", Fraction(0))
    if not set(powers) <= set(_PINT_BASE):
        raise BadData("unit", f"{text!r}: {name!r} is not a physical unit")
    dimension = Dimension(tuple(powers.get(base, Fraction(0)) for base in _PINT_BASE))
    return _Factors(_decimal(float(one.magnitude)), dimension, angle, offset)


def _decimal(factor: float) -> Fraction:
    """The short decimal behind a factor that pint multiplied out in floating point, if there is one."""
    short = f"{factor:.12g}"
    return Fraction(short if isclose(float(short), factor, rel_tol=1e-15) else repr(factor))


@lru_cache(maxsize=1024)
def _symbol(dimension: Dimension, angle: Fraction) -> str:
    """The shortest SI text for a dimension: at most one named unit, the rest in base units."""
    candidates = [_compose(dimension, angle, None, 0)]
    for name, power in product(_DERIVED, (1, -1)):
        left = dimension.per(Dimension(tuple(Fraction(each) for each in _DERIVED[name])).power(Fraction(power)))
        mass, current = left.exponents[1], left.exponents[3]
        if not mass and not current:
            candidates.append(_compose(left, angle, name, power))
    return min(candidates, key=lambda found: found[0])[1]


def _compose(left: Dimension, angle: Fraction, named: str | None, power: int) -> tuple[tuple[Fraction, int], str]:
    parts: list[tuple[str, Fraction]] = [] if named is None else [(named, Fraction(power))]
    parts += [(name, exponent) for name, exponent in zip(_BASE, left.exponents, strict=True) if exponent]
    if angle:
        parts.insert(0, ("rad", angle))
    above = "*".join(_powered(name, exponent) for name, exponent in parts if exponent > 0)
    below = [_powered(name, -exponent) for name, exponent in parts if exponent < 0]
    divisor = f"({'*'.join(below)})" if len(below) > 1 else "".join(below)
    weight = sum((2 + abs(exponent) for _, exponent in parts), Fraction(0))
    return (weight, len(below)), f"{above or '1'}/{divisor}" if divisor else above or "1"


def _powered(name: str, exponent: Fraction) -> str:
    if exponent == 1:
        return name
    return f"{name}^{exponent.numerator if exponent.denominator == 1 else float(exponent)}"
