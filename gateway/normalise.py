"""Readings in device units become readings in canonical SI; a pure function of values.

A record keeps its identity and its rows. What cannot be used becomes a reason in place of the value:

==================  =============================================================================================
``BAD_TYPE``        the point is declared in a unit that nobody knows: a number without a meaning is not a value
``BAD_NOT_FINITE``  the conversion left the range of a float64
``BAD_RANGE``       outside the range that this gateway's configuration declares
``UNCERTAIN_AHEAD`` stamped more than 2 s ahead of the gateway's clock: kept, never fused
==================  =============================================================================================

A record whose columns contradict each other or its schema cannot be read at all: it is BadData, and `replaced` puts a
gap in its place, so that the stream stays complete. Only a deadband takes rows out, and it counts them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf, isfinite

from wire.errors import BadData
from wire.messages import GapBody, ReadingsBody, SchemaBody
from wire.quality import FIRST_BAD, Quality
from wire.units import parse_unit

AHEAD_NS = 2_000_000_000
"""How far ahead of the gateway's clock a stamp may lie."""
LARGEST = (1 << 63) - 1
WORST_QUALITY = 255


@dataclass(frozen=True, slots=True)
class Rule:
    """What one gateway's configuration says about one point; numbers are in the device's unit."""

    low: float = -inf
    high: float = inf
    deadband: float = 0.0
    """A change of at most this much since the last value let through is taken out; 0: everything passes."""


@dataclass(frozen=True, slots=True)
class Columns:
    """What happens to each point of one schema, by point index: ``si = value * factor + offset``."""

    factor: tuple[float, ...]
    offset: tuple[float, ...]
    unknown: frozenset[int]
    """Points whose unit nobody knows."""
    rules: Mapping[int, Rule]
    """Only the points that the configuration names."""

    @property
    def points(self) -> int:
        return len(self.factor)

    @property
    def plain(self) -> bool:
        """True if every row can be converted without looking at it."""
        return not self.unknown and not self.rules


@dataclass(frozen=True, slots=True)
class Normalised:
    """A converted record and the deadband's memory after it (index -> last value let through, device unit)."""

    body: ReadingsBody
    passed: Mapping[int, float] = field(default_factory=dict)


def schema_to_si(schema: SchemaBody) -> tuple[SchemaBody, tuple[str, ...]]:
    """The schema that the cloud sees, and the units that nobody knows (their points keep the unit as written).

    The hash stays: it names the edge's declaration, and so do the hashes in the readings.
    """
    points, unknown = [], []
    for point in schema.points:
        try:
            unit = parse_unit(point.unit).si
        except BadData:
            unit = point.unit
            unknown.append(f"{point.device}/{point.point}: {point.unit!r}")
        points.append(point.model_copy(update={"unit": unit}))
    return schema.model_copy(update={"points": points}), tuple(unknown)


def columns(schema: SchemaBody, rules: Mapping[tuple[str, str], Rule]) -> Columns:
    """The conversion of a schema, in either form: the device's unit survives normalisation.

    ``rules`` are by (device, point).
    """
    factor, offset, unknown, chosen = [], [], [], {}
    for index, point in enumerate(schema.points):
        try:
            unit = parse_unit(point.device_unit)
        except BadData:
            unknown.append(index)
            factor.append(1.0)
            offset.append(0.0)
        else:
            factor.append(unit.factor)
            offset.append(unit.offset)
        rule = rules.get((point.device, point.point))
        if rule is not None:
            chosen[index] = rule
    return Columns(tuple(factor), tuple(offset), frozenset(unknown), chosen)


def to_si(body: ReadingsBody, by: Columns, now_ns: int, passed: Mapping[int, float]) -> Normalised:
    """Convert one record; ``passed`` is the deadband's memory before it.

    Raises BadData ``unknown-point`` if a row names a point that the schema does not hold, and ``quality``, ``side`` or
    ``overflow`` for columns that say what no reading can be.
    """
    if body.point and max(body.point) >= by.points:
        raise BadData("unknown-point", f"index {max(body.point)} in a schema of {by.points} points")
    limit = now_ns + AHEAD_NS - body.base
    if by.plain and body.quality is None and not body.side and max(body.dt, default=0) <= limit:
        factor, offset = by.factor, by.offset
        value = [v * factor[p] + offset[p] for v, p in zip(body.value, body.point, strict=True)]
        if isfinite(sum(value)):
            return Normalised(body.model_copy(update={"value": value}), passed)
    return _row_by_row(body, by, limit, passed)


def replaced(body: ReadingsBody, seq: int) -> GapBody:
    """What stands in the stream for a record that cannot be read."""
    start = min(body.base + min(body.dt, default=0), LARGEST)
    end = min(body.base + max(body.dt, default=0), LARGEST)
    return GapBody(last_seq=seq, count=len(body.point), start=start, end=end, reason="damage")


def _row_by_row(body: ReadingsBody, by: Columns, limit: int, passed: Mapping[int, float]) -> Normalised:
    """The same conversion where rows differ in fate."""
    typed = {row for row, _ in body.side}
    quality = list(body.quality) if body.quality is not None else [0] * len(body.point)
    _check(body, typed, quality)
    given, memory = iter(body.value), dict(passed)
    value, out = [], set()
    for row, (point, dt, code) in enumerate(zip(body.point, body.dt, quality, strict=True)):
        if code < FIRST_BAD and dt > limit:
            quality[row] = code = Quality.UNCERTAIN_AHEAD
        if row in typed or code >= FIRST_BAD:
            continue
        raw = next(given)
        si = raw * by.factor[point] + by.offset[point]
        verdict = _judge(raw, si, point, by)
        if verdict is not None:
            quality[row] = verdict
        elif _within_deadband(raw, point, by, memory):
            out.add(row)
        else:
            value.append(si)
    return Normalised(_rebuilt(body, value, quality, out), memory)


def _check(body: ReadingsBody, typed: set[int], quality: Sequence[int]) -> None:
    """What the message's own check cannot see."""
    rows = range(len(body.point))
    if max(body.dt, default=0) > LARGEST - body.base:
        raise BadData("overflow", "a time stamp lies beyond 63 bits")
    if not all(0 <= code <= WORST_QUALITY for code in quality):
        raise BadData("quality", f"a quality code lies outside 0..{WORST_QUALITY}")
    if len(typed) != len(body.side) or not all(row in rows and quality[row] < FIRST_BAD for row in typed):
        raise BadData("side", "a typed value stands twice, outside the rows or beside a bad quality")


def _judge(raw: float, si: float, point: int, by: Columns) -> Quality | None:
    if point in by.unknown:
        return Quality.BAD_TYPE
    rule = by.rules.get(point)
    if rule is not None and not rule.low <= raw <= rule.high:
        return Quality.BAD_RANGE
    return None if isfinite(si) else Quality.BAD_NOT_FINITE


def _within_deadband(raw: float, point: int, by: Columns, memory: dict[int, float]) -> bool:
    rule = by.rules.get(point)
    if rule is None or rule.deadband == 0.0:
        return False
    if point in memory and abs(raw - memory[point]) <= rule.deadband:
        return True
    memory[point] = raw
    return False


def _rebuilt(body: ReadingsBody, value: list[float], quality: list[int], out: set[int]) -> ReadingsBody:
    """The record with new values and qualities, without the rows in ``out``."""
    keep = [row for row in range(len(body.point)) if row not in out]
    position = {row: index for index, row in enumerate(keep)}

    def kept(column: Sequence[int] | None) -> list[int] | None:
        return column if column is None else [column[row] for row in keep]

    codes = [int(quality[row]) for row in keep]
    return body.model_copy(
        update={
            "point": [body.point[row] for row in keep],
            "dt": [body.dt[row] for row in keep],
            "value": value,
            "quality": codes if any(codes) else None,
            "ordinal": kept(body.ordinal),
            "lag": kept(body.lag),
            "side": [(position[row], item) for row, item in body.side],
            "filtered": body.filtered + len(out),
        }
    )
