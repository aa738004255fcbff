"""A heated room as two capacities and two resistances (2R2C), identified from the armadillo test cell.

Temperatures in degC, powers in W, irradiance in W/m2, seconds. The air is measured, the envelope is not. Outside
temperature and sun wander slowly by themselves. Time is never accelerated: the time constants are half an hour and
three days.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import sqrt
from types import MappingProxyType

import numpy as np

from simulators.plants.base import Actuator, Sensor, Vector, parameters, rk4
from wire.errors import Rejected

INSIDE = Sensor(unit="degC", period_s=1.0, sigma=0.2, step=1 / 16, low=-55.0, high=125.0)
OUTSIDE = Sensor(unit="degC", period_s=1.0, sigma=0.1, step=1 / 16, low=-55.0, high=125.0)
SOLAR = Sensor(unit="W/m^2", period_s=1.0, sigma=2.0, step=0.5, low=0.0, high=2000.0)
POWER = Sensor(unit="W", period_s=1.0, sigma=1.0, step=0.5, low=0.0, high=4000.0)
HEATER = Actuator(unit="W", low=0.0, high=2200.0, start=800.0)

FAULTS = frozenset({"window", "heater-loss"})
"""``window`` opens a path of W/K to the outside (25 in the pack); ``heater-loss`` takes a share of the power."""


@dataclass(frozen=True, slots=True)
class Parameters:
    """Resistances in K/W, capacities in J/K, solar aperture in m2; ``noise`` is process noise in K/sqrt(s)."""

    r_inside: float = 1.18e-3
    r_outside: float = 1.87e-2
    c_inside: float = 1.72e6
    c_envelope: float = 14.9e6
    aperture: float = 1.0
    noise: float = 2e-3 / 60.0**0.5
    lag_s: float = 1.0
    t_inside: float = 20.0
    t_envelope: float = 19.0
    t_outside: float = 5.0
    solar: float = 120.0
    wander_k: float = 3e-3
    """Random walk of the outside temperature, K/sqrt(s), pulled back over ``weather_s``."""
    wander_w: float = 0.5
    weather_s: float = 10_800.0


@dataclass(slots=True)
class ThermalZone:
    """The plant; state is (inside, envelope, heater power), weather is (outside, sun)."""

    p: Parameters
    rng: np.random.Generator
    x: Vector
    weather: tuple[float, float]
    commands: dict[str, float]
    ills: dict[str, float] = field(default_factory=lambda: dict.fromkeys(FAULTS, 0.0))

    sensors = MappingProxyType({"t-inside": INSIDE, "t-outside": OUTSIDE, "solar": SOLAR, "heater": POWER})
    actuators = MappingProxyType({"heater-set": HEATER})

    @property
    def faults(self) -> frozenset[str]:
        return FAULTS

    @property
    def state(self) -> Mapping[str, float]:
        return {"t_inside": self.x[0], "t_envelope": self.x[1]}

    @property
    def measured(self) -> Mapping[str, float]:
        outside, solar = self.weather
        return {"t-inside": self.x[0], "t-outside": outside, "solar": solar, "heater": self.x[2]}

    @property
    def settings(self) -> Mapping[str, float]:
        return self.commands

    def step(self, dt: float) -> None:
        p = self.p
        spread = sqrt(dt)
        shocks = [float(shock) for shock in self.rng.standard_normal(4)]
        inside, envelope, power = rk4(self._rates, self.x, dt)
        self.x = (inside + p.noise * spread * shocks[0], envelope + p.noise * spread * shocks[1], power)
        outside, solar = self.weather
        pull = dt / p.weather_s
        self.weather = (
            outside + (p.t_outside - outside) * pull + p.wander_k * spread * shocks[2],
            max(solar + (p.solar - solar) * pull + p.wander_w * spread * shocks[3], 0.0),
        )

    def actuate(self, point: str, value: float) -> None:
        if point not in self.actuators:
            raise Rejected("unlisted", f"{point} is not an actuator")
        self.commands[point] = self.actuators[point].check(value)

    def disturb(self, fault: str, magnitude: float) -> None:
        if fault not in FAULTS:
            raise Rejected("unlisted", f"{fault} is not a fault of a thermal zone")
        self.ills[fault] = magnitude

    def _rates(self, x: Vector) -> Vector:
        p = self.p
        inside, envelope, power = x
        outside, solar = self.weather
        through_wall = (envelope - inside) / p.r_inside
        through_window = self.ills["window"] * (outside - inside)
        return (
            (through_wall + through_window + power) / p.c_inside,
            (-through_wall + (outside - envelope) / p.r_outside + p.aperture * solar) / p.c_envelope,
            (self.commands["heater-set"] * (1.0 - self.ills["heater-loss"]) - power) / p.lag_s,
        )


def build(rng: np.random.Generator, settings: Mapping[str, float]) -> ThermalZone:
    """A zone with some parameters of its own; Rejected names one that does not exist."""
    p = parameters(Parameters, settings)
    commands = {name: actuator.start for name, actuator in ThermalZone.actuators.items()}
    return ThermalZone(p, rng, (p.t_inside, p.t_envelope, HEATER.start), (p.t_outside, p.solar), commands)
