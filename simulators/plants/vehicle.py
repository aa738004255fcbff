"""A car that drives around a city block for ever: constant turn rate and velocity between small random changes.

Metres, radians, seconds. Position is measured by GNSS, turn rate by a gyro with a bias, speed by a wheel whose radius
is one per cent off; the heading is measured by nothing. The heading counts full turns on (it is not wrapped).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import atan2, cos, hypot, pi, remainder, sin, sqrt
from types import MappingProxyType

import numpy as np

from simulators.plants.base import Actuator, Sensor, parameters
from wire.errors import Rejected

GNSS = Sensor(unit="m", period_s=1.0, sigma=3.0, step=0.01, low=-1e4, high=1e4)
GYRO_BIAS = 0.01
GYRO = Sensor(unit="rad/s", period_s=0.1, sigma=0.01, step=1e-4, low=-4.0, high=4.0, bias=GYRO_BIAS)
WHEEL = Sensor(unit="m/s", period_s=0.1, sigma=0.1, step=1e-3, low=-10.0, high=60.0, scale=1.01)

CORNERS = ((150.0, 0.0), (150.0, 150.0), (-150.0, 150.0), (-150.0, 0.0))
"""The block, in the order of driving."""
REACHED_M = 40.0
TURN_LIMIT = 0.2
"""rad/s; the driver is gentle."""

FAULTS = frozenset({"slip"})
"""``slip``: the driven wheel turns faster than the car moves, by this fraction."""


@dataclass(frozen=True, slots=True)
class Parameters:
    """``noise_speed`` in m/s/sqrt(s) is 0.038 m/s per 0.1 s; ``noise_turn`` in rad/s/sqrt(s)."""

    speed: float = 12.0
    noise_speed: float = 0.12
    noise_turn: float = 0.08
    settle_speed_s: float = 30.0
    settle_turn_s: float = 2.0
    x: float = 0.0
    y: float = 0.0
    heading: float = 0.0


@dataclass(slots=True)
class Vehicle:
    """The plant; ``corner`` is the next one to steer for."""

    p: Parameters
    rng: np.random.Generator
    x: float
    y: float
    heading: float
    speed: float
    turn: float = 0.0
    corner: int = 0
    ills: dict[str, float] = field(default_factory=lambda: dict.fromkeys(FAULTS, 0.0))

    sensors = MappingProxyType({"gnss-x": GNSS, "gnss-y": GNSS, "gyro": GYRO, "wheel": WHEEL})
    actuators: Mapping[str, Actuator] = field(default_factory=dict)

    @property
    def faults(self) -> frozenset[str]:
        return FAULTS

    @property
    def state(self) -> Mapping[str, float]:
        return {
            "x": self.x,
            "y": self.y,
            "heading": self.heading,
            "speed": self.speed,
            "yaw_rate": self.turn,
            "gyro_bias": GYRO_BIAS,
        }

    @property
    def measured(self) -> Mapping[str, float]:
        rolling = self.speed * (1.0 + self.ills["slip"])
        return {"gnss-x": self.x, "gnss-y": self.y, "gyro": self.turn, "wheel": rolling}

    @property
    def settings(self) -> Mapping[str, float]:
        return {}

    def step(self, dt: float) -> None:
        p = self.p
        self._travel(dt)
        shock_speed, shock_turn = (float(shock) * sqrt(dt) for shock in self.rng.standard_normal(2))
        self.speed += (p.speed - self.speed) / p.settle_speed_s * dt + p.noise_speed * shock_speed
        self.turn += (self._steer() - self.turn) / p.settle_turn_s * dt + p.noise_turn * shock_turn

    def actuate(self, point: str, value: float) -> None:
        raise Rejected("unlisted", f"{point}: a vehicle has no actuator")

    def disturb(self, fault: str, magnitude: float) -> None:
        if fault not in FAULTS:
            raise Rejected("unlisted", f"{fault} is not a fault of a vehicle")
        self.ills[fault] = magnitude

    def _travel(self, dt: float) -> None:
        """Along an exact circular arc, or a straight line when the turn is too slow to divide by."""
        angle = self.turn * dt
        ahead = self.heading + angle
        if abs(angle) < 1e-9:
            self.x += self.speed * dt * cos(self.heading)
            self.y += self.speed * dt * sin(self.heading)
        else:
            radius = self.speed / self.turn
            self.x += radius * (sin(ahead) - sin(self.heading))
            self.y += radius * (cos(self.heading) - cos(ahead))
        self.heading = ahead

    def _steer(self) -> float:
        """The turn rate the driver wants, rad/s: towards the next corner, but never sharply."""
        to_x, to_y = CORNERS[self.corner]
        if hypot(to_x - self.x, to_y - self.y) < REACHED_M:
            self.corner = (self.corner + 1) % len(CORNERS)
            to_x, to_y = CORNERS[self.corner]
        error = remainder(atan2(to_y - self.y, to_x - self.x) - self.heading, 2.0 * pi)
        return min(max(0.5 * error, -TURN_LIMIT), TURN_LIMIT)


def build(rng: np.random.Generator, settings: Mapping[str, float]) -> Vehicle:
    """A vehicle with some parameters of its own; Rejected names one that does not exist."""
    p = parameters(Parameters, settings)
    return Vehicle(p, rng, p.x, p.y, p.heading, p.speed)
