"""Batches as InfluxDB line protocol, and InfluxQL answers as rows. Pure.

The schema is meant to be read by people in Grafana::

    reading,device=tank,edge=edge-tank,ordinal=0,point=h1,site=demo value=0.124,quality=0i 1700000000000000000
    estimate,twin=tank-1 h1=0.1241,h1_sigma=0.0004,row-revision=0i,state-names="h1",type-hash="9f2c" 1700000000000000000
    event,kind=verified,slot=7,subject=demo/edge-tank/tank/pump1-set id="42/3",text="..." 1700000000000000000

A bad reading has a quality and no value. Field names that could be mistaken for a state's carry a hyphen, which no
symbol can hold. ``slot`` is a small hash of the event's id: it keeps events of one instant apart without a series for
each of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b

import numpy as np

from cloud.history.base import Batch, EstimateRows, Event, RawChunk, Readings
from cloud.history.rows import EstimateRow, newest
from wire.errors import BadData
from wire.points import PointId
from wire.quality import FIRST_BAD

Row = Mapping[str, str | int | float | None]
"""One row of an answer: columns and tags by name."""

# Queries are put together as text (hence S608): every literal passes `_literal`, and bound parameters are 1.x only.
EVENT_SLOTS = 4096
MAX_TIME = (1 << 63) - 2
"""The last instant InfluxDB knows."""


def encode(batch: Batch) -> Iterator[str]:
    """Every point of the batch, one line each."""
    for chunk in batch.chunks:
        yield from _readings(chunk)
    for rows in batch.estimates:
        yield from _estimates(rows)
    for event in batch.events:
        slot = int.from_bytes(blake2b(event.id.encode(), digest_size=2).digest(), "big") % EVENT_SLOTS
        tags = f"event,kind={_tag(event.kind)},slot={slot},subject={_tag(event.subject)}"
        yield f"{tags} id={_text(event.id)},text={_text(event.text)} {event.time}"


def _readings(chunk: RawChunk) -> Iterator[str]:
    heads = [
        (f"reading,device={point.device},edge={point.edge},ordinal=", f",point={point.point},site={point.site} ")
        for point in chunk.points
    ]
    columns = (chunk.point, chunk.time, chunk.ordinal, chunk.value, chunk.quality)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    for row, (point, time, ordinal, value, quality) in enumerate(rows):
        before, after = heads[point]
        if row in chunk.side:
            yield f"{before}{ordinal}{after}text={_text(str(chunk.side[row]))},quality={quality}i {time}"
        elif quality < FIRST_BAD and math.isfinite(value):
            yield f"{before}{ordinal}{after}value={value!r},quality={quality}i {time}"
        else:
            yield f"{before}{ordinal}{after}quality={quality}i {time}"


def _estimates(rows: EstimateRows) -> Iterator[str]:
    clash = {"time", *(f"{state}_sigma" for state in rows.states)} & set(rows.states)
    if clash:
        raise BadData("state-name", f"{', '.join(sorted(clash))}: this name has another meaning in InfluxDB")
    names = f'state-names="{" ".join(rows.states)}",type-hash={_text(rows.type_hash)}'
    times, revisions = rows.time.tolist(), rows.revision.tolist()
    means, sigmas = rows.mean.tolist(), rows.sigma.tolist()
    for index, twin in enumerate(rows.twin):
        beliefs = zip(rows.states, means[index], sigmas[index], strict=True)
        fields = ",".join(f"{state}={mean!r},{state}_sigma={sigma!r}" for state, mean, sigma in beliefs)
        yield f"estimate,twin={_tag(twin)} {fields},row-revision={revisions[index]}i,{names} {times[index]}"


def _tag(text: str) -> str:
    if not text or "\\" in text or not text.isprintable():
        raise BadData("tag", f"{text!r} cannot be a tag in InfluxDB")
    return text.replace(",", r"\,").replace("=", r"\=").replace(" ", r"\ ")


def _text(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', r"\"") + '"'


def ask_readings(point: PointId, start: int, end: int) -> str:
    """InfluxQL for every reading of one point."""
    tags = " AND ".join(f'"{name}" = {_literal(value)}' for name, value in point._asdict().items())
    return f"SELECT value, quality FROM reading WHERE {tags} AND {_within(start, end)} GROUP BY ordinal"  # noqa: S608


def ask_estimates(twin: str, start: int, end: int) -> str:
    """InfluxQL for every estimate of one twin."""
    return f"SELECT * FROM estimate WHERE twin = {_literal(twin)} AND {_within(start, end)}"  # noqa: S608


def ask_events(subject: str, start: int, end: int) -> str:
    """InfluxQL for every event of one subject."""
    where = f"subject = {_literal(subject)} AND {_within(start, end)}"
    return f"SELECT id, text FROM event WHERE {where} GROUP BY kind, slot"  # noqa: S608


def _within(start: int, end: int) -> str:
    return f"time >= {min(start, MAX_TIME)} AND time < {min(end, MAX_TIME)}"


def _literal(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", r"\'") + "'"


def read_readings(rows: Sequence[Row]) -> Readings:
    """Readings from the rows of `ask_readings`."""
    value = np.array([np.nan if row["value"] is None else row["value"] for row in rows], dtype=np.float64)
    columns = [
        np.array([int(row[name] or 0) for row in rows], dtype=np.int64) for name in ("time", "ordinal", "quality")
    ]
    return newest(columns[0], columns[1], value, columns[2].astype(np.uint8))


def read_estimates(rows: Sequence[Row]) -> tuple[list[int], list[EstimateRow]]:
    """Times and estimates from the rows of `ask_estimates`."""
    return [int(row["time"] or 0) for row in rows], [_estimate(row) for row in rows]


def read_events(subject: str, rows: Sequence[Row]) -> list[Event]:
    """Events from the rows of `ask_events`, in (time, id) order."""
    events = [
        Event(str(row["id"]), int(row["time"] or 0), str(row["kind"]), subject, str(row["text"] or "")) for row in rows
    ]
    return sorted(events, key=lambda event: (event.time, event.id))


def _estimate(row: Row) -> EstimateRow:
    states = tuple(str(row["state-names"]).split())
    mean = np.array([row[state] for state in states], dtype=np.float64)
    sigma = np.array([row[f"{state}_sigma"] for state in states], dtype=np.float64)
    return EstimateRow(str(row["type-hash"]), states, int(row["row-revision"] or 0), mean, sigma)
