"""A compiled twin type: what estimation, forecast, control and provisioning work with.

Everything here is SI and float64; ``unit`` keeps what the author wrote, for people. Shapes: N twins, n states,
k inputs, m sensors, q parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from wire.points import PointId
from wire.units import Unit

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class Vectorised(Protocol):
    """A function of stacked states (N, n), inputs (N, k) and parameters (N, q); rows never influence each other."""

    def __call__(self, x: Floats, u: Floats, p: Floats, /) -> Floats: ...


@dataclass(frozen=True, slots=True)
class StateDef:
    """One component of the state. ``initial_from`` names the sensor whose first value starts it."""

    name: str
    unit: Unit
    initial: float
    sigma: float
    initial_from: str | None = None
    low: float = -np.inf
    high: float = np.inf
    disturbance: bool = False


@dataclass(frozen=True, slots=True)
class ParameterDef:
    """A constant of one twin; ``sigma`` says how well it is known."""

    name: str
    unit: Unit
    value: float
    sigma: float = 0.0


@dataclass(frozen=True, slots=True)
class InputDef:
    """A known signal held between its stamps. ``actuator``: it is that actuator's read-back point."""

    name: str
    unit: Unit
    initial: float
    actuator: str | None = None
    constant: bool = False


@dataclass(frozen=True, slots=True)
class SensorDef:
    """One measured channel: z = measure(x) + v, v ~ N(0, noise^2)."""

    name: str
    unit: Unit
    noise: float
    resolution: float = 0.0
    period_ns: int = 1_000_000_000
    max_age_ns: int = 10_000_000_000
    gate: float = 0.999
    late_ns: int = 0
    """Usual lateness of the source, for people; the horizon decides what is fused."""


@dataclass(frozen=True, slots=True)
class ActuatorDef:
    """What the cloud checks before it signs; the edge checks its own limits again."""

    name: str
    unit: Unit
    low: float
    high: float
    rate_per_s: float | None
    hold_s: float
    safe: float
    tolerance: float
    settle_s: float
    dwell_s: float
    slot: int = 8


@dataclass(frozen=True)
class TwinType:
    """One compiled type.

    ``process_noise`` (n,) are standard deviations per sqrt(s). ``linear`` promises that both Jacobians are constant
    in x and u. ``hash`` names this exact model in checkpoints and in every stored estimate.
    """

    name: str
    version: str
    hash: str
    resolution_ns: int
    horizon_ns: int
    tick_ns: int
    linear: bool
    states: tuple[StateDef, ...]
    parameters: tuple[ParameterDef, ...]
    inputs: tuple[InputDef, ...]
    sensors: tuple[SensorDef, ...]
    actuators: tuple[ActuatorDef, ...]
    process_noise: Floats
    rates: Vectorised
    """(N, n): d(state)/dt."""
    rates_jacobian: Vectorised
    """(N, n, n): d(rates)/d(state)."""
    input_jacobian: Vectorised
    """(N, n, k): d(rates)/d(input)."""
    measure: Vectorised
    """(N, m): what the sensors would read."""
    measure_jacobian: Vectorised
    """(N, m, n): d(measure)/d(state)."""

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of all event channels, inputs first: the order in which equal times are applied."""
        return tuple(item.name for item in self.inputs) + tuple(item.name for item in self.sensors)


@dataclass(frozen=True)
class Binding:
    """The two points of an actuator: where setpoints go and where their effect is read."""

    write: PointId
    read: PointId


@dataclass(frozen=True)
class Twin:
    """One asset: a type, its own parameters (q,), and the points its channels and actuators are bound to."""

    name: str
    type: TwinType
    parameters: Floats
    channels: Mapping[str, PointId]
    actuators: Mapping[str, Binding]
    mode: Literal["observe", "advise", "act"] = "observe"
