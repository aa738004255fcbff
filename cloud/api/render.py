"""From SI and arrays to the bodies of the API, in the units their authors declared. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from cloud.api.ports import Belief, Floats, Measured
from cloud.api.schema import (
    ActuatorReply,
    Band,
    ChannelNow,
    ChannelReply,
    CommandReply,
    HealthOfTwin,
    NowReply,
    StateNow,
    StepReply,
    Trace,
    TwinLine,
    TwinReply,
)
from cloud.commands.model import Entry
from cloud.history.base import Readings
from cloud.twins.model import InputDef, SensorDef, Twin, TwinType
from wire.points import PointId
from wire.quality import Quality, is_bad, label
from wire.units import Unit

NS = 1_000_000_000
NO_DATA = "bad/no-data"


def twin_line(twin: Twin, belief: Belief | None) -> TwinLine:
    """One row of the list of twins."""
    return TwinLine(
        twin=twin.name,
        type=twin.type.name,
        version=twin.type.version,
        mode=twin.mode,
        age_s=None if belief is None else _age(belief.at, belief.time),
        quality=NO_DATA if belief is None else _quality(twin, belief),
    )


def twin_reply(twin: Twin) -> TwinReply:
    """Everything declared about one twin."""
    kind = twin.type
    parameters = zip(kind.parameters, twin.parameters, strict=True)
    return TwinReply(
        twin=twin.name,
        type=kind.name,
        version=kind.version,
        hash=kind.hash,
        mode=twin.mode,
        states={state.name: state.unit.text for state in kind.states},
        parameters={item.name: (item.unit.from_si(float(value)), item.unit.text) for item, value in parameters},
        sensors={
            item.name: ChannelReply(
                unit=item.unit.text, point=_point(twin, item.name), noise=item.unit.delta_from_si(item.noise)
            )
            for item in kind.sensors
        },
        inputs={item.name: ChannelReply(unit=item.unit.text, point=_point(twin, item.name)) for item in kind.inputs},
        actuators={
            item.name: ActuatorReply(
                unit=item.unit.text,
                low=item.unit.from_si(item.low),
                high=item.unit.from_si(item.high),
                rate_per_s=None if item.rate_per_s is None else item.unit.delta_from_si(item.rate_per_s),
                hold_s=item.hold_s,
                safe=item.unit.from_si(item.safe),
                tolerance=item.unit.delta_from_si(item.tolerance),
                write=str(twin.actuators[item.name].write),
                read=str(twin.actuators[item.name].read),
            )
            for item in kind.actuators
            if item.name in twin.actuators
        },
    )


def now_reply(twin: Twin, belief: Belief) -> NowReply:
    """The belief, and what was measured last."""
    rows = zip(twin.type.states, belief.mean.tolist(), belief.sigma.tolist(), strict=True)
    return NowReply(
        twin=twin.name,
        at=belief.at,
        time=belief.time,
        age_s=_age(belief.at, belief.time),
        quality=_quality(twin, belief),
        nis=_finite(belief.nis),
        nis_band=_band(belief),
        states={
            state.name: StateNow(
                value=state.unit.from_si(mean), sigma=state.unit.delta_from_si(sigma), unit=state.unit.text
            )
            for state, mean, sigma in rows
        },
        sensors=_channels(twin.type.sensors, belief, _directly(twin.type, belief, twin.parameters)),
        inputs=_channels(twin.type.inputs, belief, {}),
    )


def health_of(belief: Belief) -> HealthOfTwin:
    """Whether the innovations are as large as the filter claims (Bar-Shalom, 5.4)."""
    nis, (low, high) = _finite(belief.nis), belief.nis_band
    return HealthOfTwin(
        nis=nis,
        band=_band(belief),
        consistent=nis is None or low <= nis <= high,
        nis_total=belief.nis_total,
        updates=belief.updates,
        gated=belief.gated,
        resets=belief.resets,
    )


def bands(twin: Twin, states: Sequence[str], mean: Floats, sigma: Floats) -> dict[str, Band]:
    """Rows (R, n) of estimates by state; states that the type no longer has are left out."""
    units = {state.name: state.unit for state in twin.type.states}
    return {
        name: Band(
            unit=units[name].text,
            mean=_levels(units[name], mean[:, column]),
            sigma=(sigma[:, column] / units[name].factor).tolist(),
        )
        for column, name in enumerate(states)
        if name in units
    }


def trace(unit: Unit, point: PointId, readings: Readings) -> Trace:
    """Readings of one channel; a bad one has no value."""
    values = _levels(unit, readings.value)
    return Trace(
        unit=unit.text,
        point=str(point),
        time=readings.time.tolist(),
        value=[_finite(value) for value in values],
        quality=[label(code) for code in readings.quality.tolist()],
    )


def units_of(twin: Twin) -> Mapping[str, Unit]:
    """Declared unit of every channel."""
    defined: Iterable[InputDef | SensorDef] = (*twin.type.inputs, *twin.type.sensors)
    return {item.name: item.unit for item in defined}


def command_reply(entry: Entry) -> CommandReply:
    """A setpoint's story."""
    command = entry.command
    return CommandReply(
        id=command.cmd_id,
        twin=command.twin,
        actuator=command.actuator,
        point=str(command.point),
        value=command.value,
        unit=command.unit,
        state=entry.state,
        reason=entry.reason,
        final=entry.state.final,
        standing=entry.standing,
        steps=[
            StepReply(what=str(step.what), reason=step.reason, at=step.at, detail=dict(step.detail))
            for step in entry.steps
        ],
    )


def _channels(
    defined: Sequence[InputDef | SensorDef], belief: Belief, direct: Mapping[str, str]
) -> dict[str, ChannelNow]:
    return {
        item.name: _channel(item, belief.measured[item.name], belief.at, direct.get(item.name))
        for item in defined
        if item.name in belief.measured
    }


def _directly(kind: TwinType, belief: Belief, parameters: Floats) -> dict[str, str]:
    """Sensors that read one state as it is, by name: a row of the Jacobian with a single 1."""
    inputs = np.array([[item.initial for item in kind.inputs]])
    rows = kind.measure_jacobian(belief.mean[None], inputs, parameters[None])[0]
    return {
        sensor.name: kind.states[int(np.argmax(row))].name
        for sensor, row in zip(kind.sensors, rows, strict=True)
        if np.count_nonzero(row) == 1 and row.max() == 1.0
    }


def _channel(item: InputDef | SensorDef, measured: Measured, at: int, state: str | None) -> ChannelNow:
    return ChannelNow(
        state=state,
        value=None if measured.value is None else item.unit.from_si(measured.value),
        unit=item.unit.text,
        time=measured.time,
        age_s=_age(at, measured.time),
        quality=_freshness(item, measured, at),
        fused=measured.fused,
    )


def _freshness(item: InputDef | SensorDef, measured: Measured, at: int) -> str:
    if isinstance(item, SensorDef) and at - measured.time > item.max_age_ns:
        return Quality.BAD_STALE.label
    return label(measured.quality)


def _quality(twin: Twin, belief: Belief) -> str:
    """Good while every sensor is fresh and not bad; uncertain while one of them still is; else bad/stale."""
    fresh = [
        name in belief.measured
        and belief.at - belief.measured[name].time <= sensor.max_age_ns
        and not is_bad(belief.measured[name].quality)
        for name, sensor in ((sensor.name, sensor) for sensor in twin.type.sensors)
    ]
    grade = Quality.GOOD if all(fresh) else Quality.UNCERTAIN if any(fresh) else Quality.BAD_STALE
    return grade.label


def _point(twin: Twin, name: str) -> str | None:
    bound = twin.channels.get(name)
    return None if bound is None else str(bound)


def _levels(unit: Unit, values: Floats) -> list[float]:
    levels: list[float] = ((values - unit.offset) / unit.factor).tolist()
    return levels


def _age(at: int, time: int) -> float:
    return max(at - time, 0) / NS


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _band(belief: Belief) -> tuple[float, float | None]:
    low, high = belief.nis_band
    return low, _finite(high)
