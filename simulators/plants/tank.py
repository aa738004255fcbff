"""Quadruple tank (Johansson 2000, minimum phase): two pumps, four tanks, two levels measured and two not.

Lengths in cm, pump commands in V, seconds. Pump 1 feeds tanks 1 and 4, pump 2 feeds tanks 2 and 3; tank 3 drains into
tank 1 and tank 4 into tank 2. At 3 V and 3 V the levels settle near 12.4, 12.7, 1.8 and 1.4 cm.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import sqrt
from types import MappingProxyType

import numpy as np

from simulators.plants.base import Actuator, Sensor, Vector, parameters, rk4
from wire.errors import Rejected

GRAVITY = 981.0
"""cm/s2."""
RIM = 25.0
"""Height of every tank: what comes on top runs over."""

LEVEL = Sensor(unit="cm", period_s=0.02, sigma=0.3, step=25.0 / 4095, low=0.0, high=25.0)
"""A 12-bit converter over 25 cm behind a noisy pressure cell."""
VOLTAGE = Sensor(unit="V", period_s=0.02, sigma=0.002, step=10.0 / 4095, low=0.0, high=10.0)
PUMP = Actuator(unit="V", low=0.0, high=10.0, start=3.0)

FAULTS = frozenset({"leak", "pump1-loss", "pump2-loss"})
"""``leak`` widens the outlet of tank 1 by a fraction (0.2 in the pack); the losses weaken a pump by a fraction."""


@dataclass(frozen=True, slots=True)
class Parameters:
    """Johansson's constants; ``noise_*`` are the process noise in cm/sqrt(s), ``lag_s`` the pump's time constant."""

    area_1: float = 28.0
    area_2: float = 32.0
    area_3: float = 28.0
    area_4: float = 32.0
    outlet_1: float = 0.071
    outlet_2: float = 0.057
    outlet_3: float = 0.071
    outlet_4: float = 0.057
    gain_1: float = 3.33
    gain_2: float = 3.35
    split_1: float = 0.70
    split_2: float = 0.60
    noise_lower: float = 5e-3
    noise_upper: float = 1e-2
    lag_s: float = 0.1
    h1: float = 12.4
    h2: float = 12.7
    h3: float = 1.8
    h4: float = 1.4


@dataclass(slots=True)
class QuadrupleTank:
    """The plant; state is (h1, h2, h3, h4, v1, v2) with v the voltage that has really reached the pumps."""

    p: Parameters
    rng: np.random.Generator
    x: Vector
    commands: dict[str, float]
    ills: dict[str, float] = field(default_factory=lambda: dict.fromkeys(FAULTS, 0.0))

    sensors = MappingProxyType({"h1": LEVEL, "h2": LEVEL, "pump1": VOLTAGE, "pump2": VOLTAGE})
    actuators = MappingProxyType({"pump1-set": PUMP, "pump2-set": PUMP})

    @property
    def faults(self) -> frozenset[str]:
        return FAULTS

    @property
    def state(self) -> Mapping[str, float]:
        return dict(zip(("h1", "h2", "h3", "h4"), self.x, strict=False))

    @property
    def measured(self) -> Mapping[str, float]:
        h1, h2, _, _, v1, v2 = self.x
        return {"h1": h1, "h2": h2, "pump1": v1, "pump2": v2}

    @property
    def settings(self) -> Mapping[str, float]:
        return self.commands

    def step(self, dt: float) -> None:
        p = self.p
        moved = rk4(self._rates, self.x, dt)
        spread = sqrt(dt)
        sigmas = (p.noise_lower, p.noise_lower, p.noise_upper, p.noise_upper)
        shocks = self.rng.standard_normal(4)
        levels = (
            min(max(h + sigma * spread * float(shock), 0.0), RIM)
            for h, sigma, shock in zip(moved[:4], sigmas, shocks, strict=True)
        )
        self.x = (*levels, *moved[4:])

    def actuate(self, point: str, value: float) -> None:
        if point not in self.actuators:
            raise Rejected("unlisted", f"{point} is not an actuator")
        self.commands[point] = self.actuators[point].check(value)

    def disturb(self, fault: str, magnitude: float) -> None:
        if fault not in FAULTS:
            raise Rejected("unlisted", f"{fault} is not a fault of a quadruple tank")
        self.ills[fault] = magnitude

    def _rates(self, x: Vector) -> Vector:
        """Torricelli outflow of each tank, and each pump's flow split between a lower and an upper tank."""
        p = self.p
        h1, h2, h3, h4, v1, v2 = x
        out_1, out_2 = p.outlet_1 * (1.0 + self.ills["leak"]) * _speed(h1), p.outlet_2 * _speed(h2)
        out_3, out_4 = p.outlet_3 * _speed(h3), p.outlet_4 * _speed(h4)
        flow_1 = p.gain_1 * (1.0 - self.ills["pump1-loss"]) * v1
        flow_2 = p.gain_2 * (1.0 - self.ills["pump2-loss"]) * v2
        return (
            (-out_1 + out_3 + p.split_1 * flow_1) / p.area_1,
            (-out_2 + out_4 + p.split_2 * flow_2) / p.area_2,
            (-out_3 + (1.0 - p.split_2) * flow_2) / p.area_3,
            (-out_4 + (1.0 - p.split_1) * flow_1) / p.area_4,
            (self.commands["pump1-set"] - v1) / p.lag_s,
            (self.commands["pump2-set"] - v2) / p.lag_s,
        )


def build(rng: np.random.Generator, settings: Mapping[str, float]) -> QuadrupleTank:
    """A tank with some parameters of its own; Rejected names one that does not exist."""
    p = parameters(Parameters, settings)
    commands = {name: actuator.start for name, actuator in QuadrupleTank.actuators.items()}
    return QuadrupleTank(p, rng, (p.h1, p.h2, p.h3, p.h4, *commands.values()), commands)


def _speed(level: float) -> float:
    """Torricelli: outflow speed under a head, in cm/s; an empty tank gives nothing."""
    return sqrt(2.0 * GRAVITY * level) if level > 0.0 else 0.0
