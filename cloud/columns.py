"""From a record's columns to numpy columns, without a Python object for any reading."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cloud.history.base import Ints, RawChunk
from wire.errors import BadData
from wire.messages import PointDecl, ReadingsBody, Record, SchemaBody
from wire.points import PointId
from wire.quality import FIRST_BAD

LARGEST = (1 << 63) - 1


@dataclass(frozen=True, eq=False)
class Schema:
    """The points of one source as it declared them; readings refer to them by position. Units are SI."""

    hash: str
    points: tuple[PointId, ...]
    declared: tuple[PointDecl, ...]

    @classmethod
    def of(cls, source: str, body: SchemaBody) -> Schema:
        """Read a schema record's body."""
        points = tuple(PointId.parse(f"{source}/{decl.device}/{decl.point}") for decl in body.points)
        return cls(body.schema_hash, points, tuple(body.points))


class Decoded(NamedTuple):
    """One readings record as columns; ``received`` (R,) is the edge's clock when it took each reading, ns UTC."""

    chunk: RawChunk
    received: Ints


def decode(record: Record, body: ReadingsBody, schema: Schema) -> Decoded:
    """The columns of a readings record.

    Raises BadData for what the envelope's own check cannot see: ``point-index``, ``quality``, ``ordinal``, ``side``
    and ``overflow`` of 63 bits.
    """
    rows = len(body.point)
    point = _column(body.point, "point")
    if rows and int(point.max()) >= len(schema.points):
        raise BadData("point-index", f"row of point {int(point.max())} in a schema of {len(schema.points)}")
    quality = np.zeros(rows, np.int64) if body.quality is None else _column(body.quality, "quality")
    if rows and not 0 <= int(quality.min()) <= int(quality.max()) <= 255:
        raise BadData("quality", "a quality code lies outside 0..255")
    ordinal = np.zeros(rows, np.int64) if body.ordinal is None else _column(body.ordinal, "ordinal")
    if rows and not 0 <= int(ordinal.min()) <= int(ordinal.max()) < 1 << 31:
        raise BadData("ordinal", "an ordinal lies outside 31 bits")
    time = _from(body.base, _column(body.dt, "dt"))
    received = time if body.lag is None else time + _column(body.lag, "lag")
    side = dict(body.side)
    has_number = _has_number(quality, side, len(body.side))
    value = np.full(rows, np.nan)
    value[has_number] = body.value
    chunk = RawChunk(
        source=record.source,
        epoch=record.epoch,
        seq=record.seq,
        points=schema.points,
        point=point,
        time=time,
        ordinal=ordinal,
        value=value,
        quality=quality.astype(np.uint8),
        side=side,
    )
    return Decoded(chunk, received)


def _column(values: list[int], name: str) -> Ints:
    try:
        return np.array(values, dtype=np.int64)
    except OverflowError:
        raise BadData("overflow", f"column {name} holds a number beyond 63 bits") from None


def _from(base: int, dt: Ints) -> Ints:
    if len(dt) and int(dt.max()) > LARGEST - base:
        raise BadData("overflow", "a time stamp lies beyond 63 bits")
    return dt + np.int64(base)


def _has_number(quality: Ints, side: dict[int, int | str], listed: int) -> npt.NDArray[np.bool_]:
    """Rows (R,) that take the next of the record's values, in row order."""
    mask: npt.NDArray[np.bool_] = quality < FIRST_BAD
    inside = [row for row in side if 0 <= row < len(mask)]
    rows = np.array(inside, dtype=np.int64)
    if len(inside) != listed or not mask[rows].all():
        raise BadData("side", "a typed value stands twice, outside the rows or beside a bad quality")
    mask[rows] = False
    return mask
