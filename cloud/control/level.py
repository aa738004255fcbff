"""A PI controller for one estimated state (Astrom and Murray, *Feedback Systems*, 11.4), with limits of its own.

It acts on the estimate, not on the measurement, so that noise does not wear the actuator, and it never asks for what
the actuator cannot do: range and rate are applied here, and the integral stands still while they bind. Pure; SI.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from cloud.commands.checks import actuator_of
from cloud.twins.model import Twin
from wire.errors import BadData, ConfigError, Rejected
from wire.points import Name, Symbol
from wire.settings import Duration, Quantity, QuantityText, Settings
from wire.units import Unit, parse_unit


class LevelConfig(Settings):
    """One controller: which state of which twin, by which actuator, to which value; it acts only in mode ``act``."""

    control: Name
    kind: Literal["level"] = "level"
    twin: Name
    state: Symbol
    actuator: Symbol
    target: QuantityText
    gain: QuantityText
    """Actuator per state, such as ``0.8 V/cm``."""
    integral: Duration = 60.0
    """Time in which the integral repeats the proportional part."""
    period: Duration = 1.0
    max_age: Duration = 5.0
    """With an older estimate nothing is written."""
    max_sigma: QuantityText
    """With a more uncertain estimate nothing is written."""
    deadband: QuantityText | None = None
    """Smaller changes of the output are not sent; the actuator's tolerance if not given."""
    slot: Annotated[int, Field(ge=1, le=16)] = 12


@dataclass(frozen=True, slots=True)
class Law:
    """A controller fitted to its twin. ``column`` is the state's place in the estimate; ``unit`` is the actuator's."""

    column: int
    actuator: str
    unit: Unit
    target: float
    gain: float
    integral_s: float
    low: float
    high: float
    rate_per_s: float | None
    max_age_s: float
    max_sigma: float
    deadband: float


class Memory(NamedTuple):
    """What the controller remembers: its output and the part of it that the integral holds."""

    output: float
    integral: float


def fit(config: LevelConfig, twin: Twin) -> Law:
    """Bring a configuration to SI and check it against the twin; raises ConfigError with every defect."""
    faults: list[str] = []
    states = {state.name: (column, state) for column, state in enumerate(twin.type.states)}
    try:
        actuator = actuator_of(twin, config.actuator)
    except Rejected as error:
        raise ConfigError.at(config.control, error.detail) from None
    if config.state not in states:
        hint = f"it has {', '.join(states)}"
        raise ConfigError.at(config.control, f"{twin.name} has no state {config.state!r}", hint)
    column, state = states[config.state]
    slope = f"({actuator.unit.text or '1'})/({_difference(state.unit)})"
    law = Law(
        column=column,
        actuator=actuator.name,
        unit=actuator.unit,
        target=_si(config.target, state.unit, faults, "target"),
        gain=_si(config.gain, parse_unit(slope), faults, "gain", delta=True),
        integral_s=config.integral,
        low=actuator.low,
        high=actuator.high,
        rate_per_s=actuator.rate_per_s,
        max_age_s=config.max_age,
        max_sigma=_si(config.max_sigma, state.unit, faults, "max_sigma", delta=True),
        deadband=actuator.tolerance
        if config.deadband is None
        else _si(config.deadband, actuator.unit, faults, "deadband", delta=True),
    )
    if law.integral_s <= 0:
        faults.append("integral must be longer than 0 s")
    if faults:
        raise ConfigError([problem for fault in faults for problem in ConfigError.at(config.control, fault).problems])
    return law


def begin(law: Law, level: float, output: float) -> Memory:
    """Start without a bump: the integral takes up what holds the output where it is."""
    output = min(max(output, law.low), law.high)
    return Memory(output, output - law.gain * (law.target - level))


def step(law: Law, memory: Memory, level: float, dt_s: float) -> Memory:
    """The next output after ``dt_s``; the integral moves only if that does not push further into a limit."""
    error = law.target - level
    integral = memory.integral + law.gain / law.integral_s * error * dt_s
    wanted = law.gain * error + integral
    reach = float("inf") if law.rate_per_s is None else law.rate_per_s * dt_s
    output = min(max(wanted, law.low, memory.output - reach), law.high, memory.output + reach)
    pushing = (wanted - output) * law.gain * error > 0
    return Memory(output, memory.integral if pushing else integral)


def _difference(unit: Unit) -> str:
    """The unit's difference: a slope is per kelvin, never per degree above freezing."""
    return unit.si if unit.offset else unit.text or "1"


def _si(given: Quantity, wanted: Unit, faults: list[str], name: str, *, delta: bool = False) -> float:
    try:
        unit = parse_unit(given.unit)
    except BadData as error:
        faults.append(f"{name}: {error.detail}")
        return 0.0
    if unit.dimension != wanted.dimension:
        faults.append(f"{name} is in {given.unit!r}, must be in a unit like {wanted.text!r}")
        return 0.0
    return unit.delta_to_si(given.value) if delta else unit.to_si(given.value)
