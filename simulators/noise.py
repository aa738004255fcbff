"""A measuring chain: true value -> scale, bias and drift -> noise -> converter, from one seeded stream of its own.

Every sensor has its own random stream, named by seed and place, so what is measured does not depend on which protocol
serves it or on how many other sensors there are.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import floor, sqrt
from zlib import crc32

import numpy as np

from simulators.plants.base import Sensor


def stream(seed: int, *place: str) -> np.random.Generator:
    """The random stream of one place, such as ``("tank", "h1")``: the same on every machine."""
    return np.random.default_rng([seed, *(crc32(part.encode()) for part in place)])


def quantise(value: float, sensor: Sensor) -> float:
    """The converter: clipped to its span, then the nearest whole step counted from ``low`` (from 0 if unbounded)."""
    value = min(max(value, sensor.low), sensor.high)
    if sensor.step <= 0.0:
        return value
    foot = sensor.low if np.isfinite(sensor.low) else 0.0
    return foot + floor((value - foot) / sensor.step + 0.5) * sensor.step


@dataclass(slots=True)
class Instrument:
    """One sensor at work. ``disturbance`` is its current coloured noise, ``wandered`` its drift so far."""

    sensor: Sensor
    rng: np.random.Generator
    disturbance: float = 0.0
    wandered: float = 0.0
    started: bool = False

    def read(self, true: float, shift: float = 0.0) -> float:
        """Convert once; ``shift`` is what a fault adds ahead of the converter."""
        sensor = self.sensor
        analogue = true * sensor.scale + sensor.bias + self._drift() + self._noise() + shift
        return quantise(analogue, sensor)

    def _noise(self) -> float:
        """White, or AR(1) with lag-1 autocorrelation ``rho`` and the same standard deviation from the first sample."""
        rho = self.sensor.correlation
        shock = float(self.rng.standard_normal()) * self.sensor.sigma
        if rho and self.started:
            shock = rho * self.disturbance + sqrt(1.0 - rho * rho) * shock
        self.disturbance, self.started = shock, True
        return shock

    def _drift(self) -> float:
        if self.sensor.drift:
            self.wandered += self.sensor.drift * sqrt(self.sensor.period_s) * float(self.rng.standard_normal())
        return self.wandered
