"""Problems found while a document gets its meaning, and the readings of units and quantities that may fail.

What cannot be read is replaced by a stand-in that fits everywhere, so one mistake is reported once and the search for
others goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction

from wire.errors import BadData, ConfigError, Problem
from wire.settings import Document, Loc, Quantity
from wire.units import TIME, Dimension, Unit, parse_unit

UNKNOWN = Unit("?", "1", 1.0, 0.0)
"""Stands in for a unit that could not be read."""

Blame = Callable[[Loc, str, str, int], Problem]
"""Where a defect is shown: the place, what is wrong, what to do, and the column inside a text."""


def in_document(document: Document) -> Blame:
    """Shows a defect at its own place."""

    def blame(loc: Loc, message: str, hint: str, offset: int) -> Problem:
        return document.problem(loc, message, hint, offset=offset)

    return blame


@dataclass
class Findings:
    """Collects problems and turns what people write into SI numbers."""

    blame: Blame
    problems: list[Problem] = field(default_factory=list)

    def add(self, loc: Loc, message: str, hint: str = "", offset: int = 0) -> None:
        self.problems.append(self.blame(loc, message, hint, offset))

    def settle(self) -> None:
        """Raise ConfigError if there was anything."""
        if self.problems:
            raise self.error()

    def error(self) -> ConfigError:
        """Everything found, in the order of the file."""
        return ConfigError(sorted(set(self.problems), key=lambda problem: problem[:3]))

    def unit(self, text: str, loc: Loc) -> Unit:
        try:
            return parse_unit(text)
        except BadData as error:
            self.add(loc, error.detail)
            return UNKNOWN

    def level(self, quantity: Quantity, unit: Unit, loc: Loc) -> float:
        """An absolute value in SI: degC takes its offset."""
        return self._own_unit(quantity, unit, loc).to_si(quantity.value)

    def delta(self, quantity: Quantity, unit: Unit, loc: Loc) -> float:
        """A difference in SI: noise, tolerance, rate; its unit must be written."""
        if not quantity.unit and unit.text not in ("", "1"):
            self.add(loc, "needs its unit", f"for example {quantity.value:g} {unit.text}")
        return self._own_unit(quantity, unit, loc).delta_to_si(quantity.value)

    def positive(self, quantity: Quantity, unit: Unit, loc: Loc, *, zero: bool = False) -> float:
        """A difference that must be above zero (or may be zero)."""
        value = self.delta(quantity, unit, loc)
        if value < 0 or (value == 0 and not zero):
            self.add(loc, "must not be negative" if zero else "must be above zero")
        return value

    def rate_of(self, quantity: Quantity, dimension: Dimension | None, loc: Loc, example: str) -> float:
        """A change per time (or per sqrt of time) in SI; ``dimension`` None fits everything."""
        unit = self.unit(quantity.unit, loc)
        if unit is not UNKNOWN and dimension is not None and unit.dimension != dimension:
            self.add(loc, f"{_shown(unit)} is not a unit of {dimension}", f"for example {example}")
        if quantity.value < 0:
            self.add(loc, "must not be negative")
        return unit.delta_to_si(quantity.value)

    def _own_unit(self, quantity: Quantity, unit: Unit, loc: Loc) -> Unit:
        if not quantity.unit or unit is UNKNOWN:
            return unit
        own = self.unit(quantity.unit, loc)
        if own is not UNKNOWN and own.dimension != unit.dimension:
            self.add(loc, f"{_shown(own)} does not measure what {_shown(unit)} does", f"write it in {_shown(unit)}")
        return own


def dimension_of(unit: Unit) -> Dimension | None:
    """The dimension, or None for a unit that could not be read."""
    return None if unit is UNKNOWN else unit.dimension


def per_time(unit: Unit, power: Fraction = Fraction(1)) -> Dimension | None:
    """The dimension of a change per second, or with ``power`` 1/2 per sqrt(s)."""
    known = dimension_of(unit)
    return None if known is None else known.per(TIME.power(power))


def _shown(unit: Unit) -> str:
    return unit.text or "a plain number"
