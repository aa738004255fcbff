"""Declarations of a type file with SI numbers: states, parameters, inputs, sensors, actuators, process noise."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from cloud.twins.findings import UNKNOWN, Findings, dimension_of, per_time
from cloud.twins.model import ActuatorDef, InputDef, ParameterDef, SensorDef, StateDef
from cloud.twins.schema import ActuatorItem, InputItem, SensorItem, StateItem, TypeFile
from wire.errors import BadData
from wire.expressions import FUNCTIONS, Flaw, Symbol, parse
from wire.settings import Loc, Quantity, quantity
from wire.units import Unit, parse_unit

NS = 1_000_000_000
OFFSET_SUFFIX = "_offset"
OFFSET_REACH_S = 60.0
"""A default offset may move its state in this time as far as the process noise does."""
OFFSET_MEMORY_S = 600.0
"""An offset may change by its own initial uncertainty in this time."""
MISSED_PERIODS = 10.0
"""A sensor is too old after so many periods, unless ``max_age`` says otherwise."""

HALF = Fraction(1, 2)

_FROM = re.compile(r"from\s+([A-Za-z][A-Za-z0-9_]*)\s*(?:(?:\+/-|±)\s*(.+))?\Z")


class Definitions(NamedTuple):
    """Everything a type declares, before its equations. ``process_noise`` has one entry for each state."""

    states: tuple[StateDef, ...]
    parameters: tuple[ParameterDef, ...]
    inputs: tuple[InputDef, ...]
    sensors: tuple[SensorDef, ...]
    actuators: tuple[ActuatorDef, ...]
    process_noise: tuple[float, ...]


def define(file: TypeFile, findings: Findings) -> Definitions:
    """Read every declaration; what is wrong goes into ``findings``."""
    _check_names(file, findings)
    sensors = tuple(_sensor(name, item, findings) for name, item in file.sensors.items())
    actuators = tuple(_actuator(name, item, findings) for name, item in file.actuators.items())
    states = tuple(_state(name, item, sensors, findings) for name, item in file.states.items())
    noise = _process_noise(file, states, findings)
    offsets, walks = _offsets(file, states, noise, findings)
    return Definitions(
        states=states + offsets,
        parameters=tuple(_parameter(name, file, findings) for name in file.parameters),
        inputs=tuple(_input(name, item, actuators, findings) for name, item in file.inputs.items()),
        sensors=sensors,
        actuators=actuators,
        process_noise=noise + walks,
    )


def _check_names(file: TypeFile, findings: Findings) -> None:
    """One name, one meaning: inside equations, and among the channels that a twin binds."""
    seen: dict[str, str] = {}
    for group in ("states", "parameters", "inputs"):
        for name in getattr(file, group):
            if name in FUNCTIONS:
                findings.add((group, name), f"`{name}` is the name of a function")
            elif name in seen:
                findings.add((group, name), f"`{name}` is also one of the {seen[name]}")
            seen[name] = group
    for name in file.sensors.keys() & file.inputs.keys():
        findings.add(("sensors", name), f"`{name}` is also one of the inputs")


def _state(name: str, item: StateItem, sensors: tuple[SensorDef, ...], findings: Findings) -> StateDef:
    loc: Loc = ("states", name)
    unit = findings.unit(item.unit, (*loc, "unit"))
    low, high = _bounds(item.range, unit, (*loc, "range"), findings)
    at = (*loc, "initial")
    if match := _FROM.match(item.initial):
        sensor = next((sensor for sensor in sensors if sensor.name == match[1]), None)
        if sensor is None:
            findings.add(at, f"no sensor is called {match[1]}", f"there are {', '.join(each.name for each in sensors)}")
            return StateDef(name, unit, 0.0, 1.0, None, low, high)
        if UNKNOWN not in (sensor.unit, unit) and sensor.unit.dimension != unit.dimension:
            findings.add(at, f"{match[1]} is in {sensor.unit.text}, {name} in {unit.text}")
        spread = _quantity(match[2], at, findings) if match[2] else None
        sigma = findings.positive(spread, unit, at) if spread else sensor.noise
        middle = (low + high) / 2 if np.isfinite(low) and np.isfinite(high) else unit.to_si(0.0)
        return StateDef(name, unit, middle, sigma, match[1], low, high)
    found = _quantity(item.initial, at, findings)
    if not found.sigma:
        findings.add(at, "a belief needs its uncertainty", "for example `20 +/- 5` or `from SENSOR`")
    initial = findings.level(found, unit, at)
    if not low <= initial <= high:
        findings.add(at, "starts outside its own range")
    sigma = findings.delta(Quantity(found.sigma or 1.0, None, found.unit or unit.text), unit, at)
    return StateDef(name, unit, initial, sigma, None, low, high)


def _parameter(name: str, file: TypeFile, findings: Findings) -> ParameterDef:
    item, loc = file.parameters[name], ("parameters", name)
    unit = findings.unit(item.unit, (*loc, "unit"))
    value = findings.level(item.value, unit, (*loc, "value"))
    sigma = unit.delta_to_si(item.value.sigma or 0.0)
    return ParameterDef(name, unit, value, sigma)


def _input(name: str, item: InputItem, actuators: tuple[ActuatorDef, ...], findings: Findings) -> InputDef:
    loc: Loc = ("inputs", name)
    unit = findings.unit(item.unit, (*loc, "unit"))
    if item.constant is not None:
        if item.source is not None or item.initial is not None:
            findings.add(loc, "a constant has neither `from` nor `initial`")
        return InputDef(name, unit, findings.level(item.constant, unit, (*loc, "constant")), constant=True)
    actuator = next((each for each in actuators if each.name == item.source), None)
    if item.source is not None and actuator is None:
        known = ", ".join(each.name for each in actuators) or "none"
        findings.add((*loc, "from"), f"no actuator is called {item.source}", f"there are {known}")
    if actuator is not None and UNKNOWN not in (actuator.unit, unit) and actuator.unit.dimension != unit.dimension:
        findings.add((*loc, "unit"), f"actuator {actuator.name} is in {actuator.unit.text}")
    if item.initial is not None:
        initial = findings.level(item.initial, unit, (*loc, "initial"))
    else:
        initial = actuator.safe if actuator else 0.0
        if item.source is None:
            findings.add(loc, "what holds before the first reading?", "give `initial`, or `constant`, or `from`")
    return InputDef(name, unit, initial, actuator.name if actuator else None)


def _sensor(name: str, item: SensorItem, findings: Findings) -> SensorDef:
    loc: Loc = ("sensors", name)
    unit = findings.unit(item.unit, (*loc, "unit"))
    step = item.resolution
    if item.period <= 0:
        findings.add((*loc, "period"), "must be above zero")
    return SensorDef(
        name=name,
        unit=unit,
        noise=findings.positive(item.noise, unit, (*loc, "noise")),
        resolution=findings.positive(step, unit, (*loc, "resolution"), zero=True) if step else 0.0,
        period_ns=round(item.period * NS),
        max_age_ns=round((item.max_age or MISSED_PERIODS * item.period) * NS),
        gate=item.gate,
        late_ns=round(item.late * NS),
    )


def _actuator(name: str, item: ActuatorItem, findings: Findings) -> ActuatorDef:
    loc: Loc = ("actuators", name)
    unit = findings.unit(item.unit, (*loc, "unit"))
    low, high = _bounds(item.range, unit, (*loc, "range"), findings)
    safe = findings.level(item.safe, unit, (*loc, "safe"))
    if not low <= safe <= high:
        findings.add((*loc, "safe"), "the safe value lies outside the range")
    if item.hold <= 0:
        findings.add((*loc, "hold"), "must be above zero")
    rate = None
    if item.rate is not None:
        rate = findings.rate_of(item.rate, per_time(unit), (*loc, "rate"), f"1 {unit.text}/min")
        if rate == 0:
            findings.add((*loc, "rate"), "must be above zero")
    back = item.readback
    return ActuatorDef(
        name=name,
        unit=unit,
        low=low,
        high=high,
        rate_per_s=rate,
        hold_s=item.hold,
        safe=safe,
        tolerance=findings.positive(back.tolerance, unit, (*loc, "readback", "tolerance")),
        settle_s=back.settle,
        dwell_s=back.dwell,
        slot=item.slot,
    )


def _process_noise(file: TypeFile, states: tuple[StateDef, ...], findings: Findings) -> tuple[float, ...]:
    for name in file.process_noise.keys() - file.states.keys():
        findings.add(("process_noise", name), f"no state is called {name}")
    found = []
    for state in states:
        example = f"0.1 {state.unit.text or '1'}/sqrt(s)"
        item = file.process_noise.get(state.name)
        if item is None:
            findings.add(("process_noise",), f"`{state.name}` is missing", f"for example {example}")
        loc: Loc = ("process_noise", state.name)
        found.append(findings.rate_of(item, per_time(state.unit, HALF), loc, example) if item else 0.0)
    return tuple(found)


def _offsets(
    file: TypeFile, states: tuple[StateDef, ...], noise: tuple[float, ...], findings: Findings
) -> tuple[tuple[StateDef, ...], tuple[float, ...]]:
    """Slow disturbance states, one added to the rate of each chosen state, and how they walk.

    ``default``: every state that a sensor measures directly, sized by its process noise.
    """
    if file.offsets == "none":
        return (), ()
    sizes: dict[str, float] = {}
    if file.offsets == "default":
        measured = _measured(file)
        sizes = {
            state.name: w / OFFSET_REACH_S**0.5
            for state, w in zip(states, noise, strict=True)
            if state.name in measured
        }
        if not sizes or not all(sizes.values()):
            findings.add(("offsets",), "no size follows from the process noise", "write {STATE: SIZE} or none")
    else:
        by_name = {state.name: state for state in states}
        for name, size in file.offsets.items():
            loc: Loc = ("offsets", name)
            if name not in by_name:
                findings.add(loc, f"no state is called {name}")
                continue
            unit = by_name[name].unit
            sizes[name] = findings.rate_of(size, per_time(unit), loc, f"0.001 {unit.text or '1'}/s")
            if sizes[name] == 0:
                findings.add(loc, "must be above zero")
    chosen = [state for state in states if state.name in sizes]
    taken = {*file.states, *file.parameters, *file.inputs}
    for state in chosen:
        if state.name + OFFSET_SUFFIX in taken:
            findings.add(("offsets",), f"`{state.name}{OFFSET_SUFFIX}` is already the name of something else")
    offsets = tuple(_offset(state, sizes[state.name]) for state in chosen)
    return offsets, tuple(offset.sigma / OFFSET_MEMORY_S**0.5 for offset in offsets)


def _offset(state: StateDef, size: float) -> StateDef:
    rate = UNKNOWN if dimension_of(state.unit) is None else _rate_unit(state.unit)
    return StateDef(state.name + OFFSET_SUFFIX, rate, 0.0, size or 1.0, disturbance=True)


def _rate_unit(unit: Unit) -> Unit:
    """The author's unit per second, as long as that can still be written."""
    simple = re.fullmatch(r"[^\W\d]+|%", unit.text)
    try:
        return parse_unit(f"{unit.text}/s" if simple else f"({unit.text or '1'})/s")
    except BadData:
        return parse_unit(f"({unit.si})/s")


def _measured(file: TypeFile) -> set[str]:
    """States that some sensor shows as they are."""
    found = set()
    for item in file.sensors.values():
        try:
            tree = parse(item.measures)
        except Flaw:
            continue
        if isinstance(tree, Symbol):
            found.add(tree.name)
    return found


def _bounds(bounds: tuple[float, float] | None, unit: Unit, loc: Loc, findings: Findings) -> tuple[float, float]:
    if bounds is None:
        return -np.inf, np.inf
    low, high = unit.to_si(bounds[0]), unit.to_si(bounds[1])
    if not low < high:
        findings.add(loc, "the lower bound is not below the upper one")
    return low, high


def _quantity(text: str, loc: Loc, findings: Findings) -> Quantity:
    try:
        return quantity(text)
    except BadData as error:
        findings.add(loc, error.detail)
        return Quantity(0.0, 1.0, "")
