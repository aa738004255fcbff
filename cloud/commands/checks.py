"""What the cloud asks before it signs, and the envelope it signs. Pure.

The edge asks again, in its own unit and against its own allow-list: passing here is necessary, never sufficient.
"""

from __future__ import annotations

import math

from cloud.commands.model import Command, EdgeState, Order, Revision
from cloud.twins.model import ActuatorDef, Twin
from wire.errors import BadData, Rejected
from wire.messages import Setpoint
from wire.units import Unit, parse_unit

TRAVEL_S = 5.0
"""Allowance for a result's way up: two commits, two hops."""


def command_of(order: Order, twin: Twin, *, cmd_id: str, device_unit: str | None, now: int) -> Command:
    """The order as a command; a value that cannot be converted leaves ``value_si`` None (see ``refusal``).

    Raises Rejected("unknown-actuator") and, for a value that no ledger should hold, Rejected("not-finite").
    """
    actuator = actuator_of(twin, order.actuator)
    if not math.isfinite(order.value):
        raise Rejected("not-finite", f"{order.actuator}: {order.value}")
    unit = actuator.unit.text if order.unit is None else order.unit
    value_si = _to_si(order.value, unit, actuator.unit)
    return Command(
        cmd_id=cmd_id,
        key=order.key,
        twin=twin.name,
        actuator=actuator.name,
        point=twin.actuators[order.actuator].write,
        value=order.value,
        unit=unit,
        value_si=value_si,
        value_device=None if value_si is None else _to_device(value_si, device_unit, actuator.unit),
        device_unit=device_unit or "",
        issuer=order.issuer,
        slot=actuator.slot if order.slot is None else order.slot,
        reason=order.reason,
        requested=now,
        exp=now + round(order.deadline_s * 1e9),
        hold_s=actuator.hold_s,
        patience_s=actuator.settle_s + actuator.dwell_s + TRAVEL_S,
    )


def actuator_of(twin: Twin, name: str) -> ActuatorDef:
    """The declaration of a bound actuator; Rejected("unknown-actuator") names those there are."""
    found = next((item for item in twin.type.actuators if item.name == name and name in twin.actuators), None)
    if found is None:
        known = ", ".join(sorted(twin.actuators)) or "none"
        raise Rejected("unknown-actuator", f"{twin.name} has no actuator {name!r} (it has: {known})")
    return found


def refusal(command: Command, actuator: ActuatorDef, edge: EdgeState | None, rivals: list[Command]) -> tuple[str, str]:
    """Why the command must not be sent, as (reason, detail); ("", "") if nothing stands against it.

    ``rivals`` are the live commands of the same point: a lower slot outranks a higher one.
    """
    unit = actuator.unit
    if command.value_si is None:
        return "unit", f"{command.unit!r} is not a unit of {actuator.name}, which is in {unit.text!r}"
    if not actuator.low <= command.value_si <= actuator.high:
        given, low, high = (unit.from_si(value) for value in (command.value_si, actuator.low, actuator.high))
        return "range", f"{given:g} {unit.text} is outside {low:g} .. {high:g} {unit.text}"
    if edge is None or not edge.online or not edge.nonce:
        return "edge-offline", f"{command.point.source} is not there to answer"
    if command.value_device is None:
        return "not-writable", f"{command.point.source} has not declared {command.point} writable in a fitting unit"
    outranked = [rival for rival in rivals if rival.slot < command.slot]
    if outranked:
        return "outranked", f"slot {outranked[0].slot} holds the point ({outranked[0].cmd_id})"
    return "", ""


def envelope(command: Command, edge: EdgeState, *, kid: str, revision: int, now: int, exp: int) -> Setpoint:
    """The body to sign, for a first sending and for a renewal alike."""
    if command.value_device is None:
        raise Rejected("unit", f"{command.cmd_id} has no value in the device's unit")
    point = command.point
    return Setpoint(
        kid=kid,
        site=point.site,
        edge=point.edge,
        device=point.device,
        point=point.point,
        value=command.value_device,
        unit=command.device_unit,
        cmd_id=command.cmd_id,
        issuer=command.issuer,
        slot=command.slot,
        term=edge.term,
        revision=revision,
        iat=now,
        exp=exp,
        hold_s=command.hold_s,
        nonce=edge.nonce,
        reason=command.reason,
    )


def floor(command: Command, edge: EdgeState) -> int:
    """The revision that the edge has already seen for this point under our term, or 0."""
    seen = edge.revisions.get((command.point.device, command.point.point), Revision(0, 0))
    return seen.revision if seen.term >= edge.term else 0


def _to_si(value: float, text: str, wanted: Unit) -> float | None:
    try:
        unit = parse_unit(text)
    except BadData:
        return None
    return unit.to_si(value) if unit.dimension == wanted.dimension else None


def _to_device(value_si: float, device_unit: str | None, wanted: Unit) -> float | None:
    if device_unit is None:
        return None
    try:
        unit = parse_unit(device_unit)
    except BadData:
        return None
    return unit.from_si(value_si) if unit.dimension == wanted.dimension else None
