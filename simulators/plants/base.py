"""The plant seam: a piece of the world that moves by itself, is measured, and obeys actuators.

A plant module is found by its name (``tank``) and exposes ``build(rng, settings)``. Every quantity is in the
unit its point declares. A plant has no clock and no thread: ``step`` is its only motion, so the same seed and the same
calls give the same trajectory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np

from wire.errors import Rejected

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Vector = tuple[float, ...]
Rates = Callable[[Vector], Vector]


@dataclass(frozen=True, slots=True)
class Sensor:
    """How one true quantity becomes a number at a device: scale error, bias, noise, then the converter.

    ``sigma`` is the standard deviation of one sample and ``correlation`` its lag-1 autocorrelation (0: white);
    ``drift`` is a random walk per sqrt(s). ``step`` is the converter's resolution (0: none) between ``low`` and
    ``high``. ``period_s`` is how often the device converts.
    """

    unit: str
    period_s: float
    sigma: float = 0.0
    step: float = 0.0
    low: float = -np.inf
    high: float = np.inf
    scale: float = 1.0
    bias: float = 0.0
    correlation: float = 0.0
    drift: float = 0.0


@dataclass(frozen=True, slots=True)
class Actuator:
    """A writable quantity; the device itself refuses what lies outside ``low .. high``."""

    unit: str
    low: float
    high: float
    start: float

    def check(self, value: float) -> float:
        """The value, or Rejected("range"): NaN is outside of every range."""
        if not self.low <= value <= self.high:
            raise Rejected("range", f"{value} is not in [{self.low}, {self.high}] {self.unit}")
        return value


class Plant(Protocol):
    """One asset. Call order: any of them at any time; all return at once."""

    @property
    def sensors(self) -> Mapping[str, Sensor]:
        """What can be measured, by point name. ``measured`` has the same keys."""
        ...

    @property
    def actuators(self) -> Mapping[str, Actuator]:
        """What can be written, by point name; disjoint from the sensors."""
        ...

    @property
    def faults(self) -> frozenset[str]:
        """Names that ``disturb`` knows."""
        ...

    @property
    def state(self) -> Mapping[str, float]:
        """The truth, named as twin types name it. Never sent anywhere."""
        ...

    @property
    def measured(self) -> Mapping[str, float]:
        """The true value behind every sensor."""
        ...

    @property
    def settings(self) -> Mapping[str, float]:
        """The value each actuator was last told."""
        ...

    def step(self, dt: float) -> None:
        """Let ``dt`` seconds pass."""
        ...

    def actuate(self, point: str, value: float) -> None:
        """Tell an actuator a new value; Rejected("range") or Rejected("unlisted")."""
        ...

    def disturb(self, fault: str, magnitude: float) -> None:
        """Set the size of a fault of the plant itself; 0 is healthy."""
        ...


D = TypeVar("D", bound="DataclassInstance")


def parameters(model: type[D], chosen: Mapping[str, float]) -> D:
    """A plant's constants with some of its own; Rejected("parameter") names one that does not exist."""
    known = [item.name for item in fields(model)]
    for name in chosen:
        if name not in known:
            raise Rejected("parameter", f"no parameter {name}, only {', '.join(known)}")
    return model(**chosen)


def rk4(rates: Rates, x: Vector, dt: float) -> Vector:
    """One classical Runge-Kutta step of order 4."""
    k1 = rates(x)
    k2 = rates(tuple(a + 0.5 * dt * b for a, b in zip(x, k1, strict=True)))
    k3 = rates(tuple(a + 0.5 * dt * b for a, b in zip(x, k2, strict=True)))
    k4 = rates(tuple(a + dt * b for a, b in zip(x, k3, strict=True)))
    return tuple(a + dt / 6.0 * (b + 2.0 * c + 2.0 * d + e) for a, b, c, d, e in zip(x, k1, k2, k3, k4, strict=True))
