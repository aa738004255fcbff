"""A record's columns become numpy columns with the same content, or are refused for a stated reason."""

from __future__ import annotations

import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.columns import Schema, decode
from wire.errors import BadData
from wire.messages import PointDecl, ReadingsBody, Record, SchemaBody
from wire.points import PointId
from wire.quality import FIRST_BAD

BASE = 1_700_000_000_000_000_000
NAMES = ("h1", "h2", "mode")
SCHEMA = Schema.of(
    "demo/edge-tank",
    SchemaBody(
        schema_hash="s1",
        config_hash="c1",
        points=[PointDecl(device="tank", point=name, unit="m", device_unit="cm") for name in NAMES],
    ),
)


def record(body: ReadingsBody, epoch: int = 1, seq: int = 5) -> Record:
    return Record(source="demo/edge-tank", stream="telemetry", epoch=epoch, seq=seq, body=body)


def body(**columns: object) -> ReadingsBody:
    return ReadingsBody.model_validate({"kind": "readings", "schema_hash": "s1", "base": BASE, **columns})


def test_a_schema_names_its_points_in_full() -> None:
    assert SCHEMA.points[2] == PointId("demo", "edge-tank", "tank", "mode")
    assert (SCHEMA.hash, SCHEMA.declared[0].device_unit) == ("s1", "cm")


def test_columns_keep_rows_and_identity() -> None:
    chunk, received = decode(
        record(
            given_body := body(
                point=[0, 1, 0, 2],
                dt=[0, 0, 7, 9],
                value=[0.5, 0.25],
                quality=[0, 129, 65, 0],
                ordinal=[0, 0, 1, 0],
                lag=[3, 0, -2, 0],
                side=[(3, "auto")],
            )
        ),
        given_body,
        SCHEMA,
    )
    assert (chunk.source, chunk.epoch, chunk.seq, chunk.points) == ("demo/edge-tank", 1, 5, SCHEMA.points)
    assert chunk.point.tolist() == [0, 1, 0, 2]
    assert chunk.time.tolist() == [BASE, BASE, BASE + 7, BASE + 9]
    assert chunk.ordinal.tolist() == [0, 0, 1, 0]
    assert np.array_equal(chunk.value, [0.5, np.nan, 0.25, np.nan], equal_nan=True)
    assert chunk.quality.tolist() == [0, 129, 65, 0]
    assert chunk.side == {3: "auto"}
    assert received.tolist() == [BASE + 3, BASE, BASE + 5, BASE + 9]


def test_omitted_columns_are_zero_and_no_rows_are_no_rows() -> None:
    plain = body(point=[0], dt=[1], value=[2.0])
    chunk, received = decode(record(plain), plain, SCHEMA)
    assert (chunk.quality.tolist(), chunk.ordinal.tolist(), received.tolist()) == ([0], [0], [BASE + 1])
    empty = body(point=[], dt=[], value=[])
    assert len(decode(record(empty), empty, SCHEMA).chunk.point) == 0


@pytest.mark.parametrize(
    ("reason", "columns"),
    [
        ("point-index", {"point": [3], "dt": [0], "value": [1.0]}),
        ("quality", {"point": [0], "dt": [0], "value": [1.0], "quality": [-1]}),
        ("quality", {"point": [0], "dt": [0], "value": [], "quality": [256]}),
        ("ordinal", {"point": [0], "dt": [0], "value": [1.0], "ordinal": [-1]}),
        ("ordinal", {"point": [0], "dt": [0], "value": [1.0], "ordinal": [1 << 31]}),
        ("overflow", {"point": [1 << 63], "dt": [0], "value": [1.0]}),
        ("overflow", {"point": [0], "dt": [1 << 70], "value": [1.0]}),
        ("overflow", {"point": [0], "dt": [(1 << 63) - 1], "value": [1.0]}),
        ("overflow", {"point": [0], "dt": [0], "value": [1.0], "lag": [1 << 64]}),
        ("side", {"point": [0], "dt": [0], "value": [], "side": [(1, "x")]}),
        ("side", {"point": [0], "dt": [0], "value": [], "side": [(-1, "x")]}),
        ("side", {"point": [0], "dt": [0], "value": [], "side": [(10**30, "x")]}),
        ("side", {"point": [0, 0], "dt": [0, 0], "value": [], "side": [(0, "x"), (0, "y")]}),
        ("side", {"point": [0, 0], "dt": [0, 0], "value": [], "quality": [0, 129], "side": [(1, "x")]}),
    ],
)
def test_columns_that_cannot_be_are_refused_with_a_reason(reason: str, columns: dict[str, object]) -> None:
    wrong = body(**columns)
    with pytest.raises(BadData) as refused:
        decode(record(wrong), wrong, SCHEMA)
    assert refused.value.reason == reason


rows = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.integers(0, 10**12),
        st.sampled_from([0, 64, 65, 66, 128, 129, 255]),
        st.floats(allow_nan=False, allow_infinity=False),
        st.booleans(),
    ),
    max_size=30,
)


@given(rows)
def test_every_row_finds_its_own_value(rows: list[tuple[int, int, int, float, bool]]) -> None:
    """Against a row-by-row reading of the message's definition."""
    side = [(row, f"t{row}") for row, each in enumerate(rows) if each[4] and each[2] < FIRST_BAD]
    typed = dict(side)
    values = [each[3] for row, each in enumerate(rows) if each[2] < FIRST_BAD and row not in typed]
    message = body(
        point=[each[0] for each in rows],
        dt=[each[1] for each in rows],
        quality=[each[2] for each in rows],
        value=values,
        side=side,
    )
    chunk = decode(record(message), message, SCHEMA).chunk
    left = iter(values)
    expected = [next(left) if each[2] < FIRST_BAD and row not in typed else np.nan for row, each in enumerate(rows)]
    assert np.array_equal(chunk.value, expected, equal_nan=True)
    assert chunk.side == typed
    assert chunk.quality.tolist() == [each[2] for each in rows]


def test_no_object_is_made_for_a_reading() -> None:
    """Memory per reading stays that of the columns (41 bytes) and their scratch, and time below a microsecond."""
    count = 5000
    message = body(point=[0, 1] * (count // 2), dt=list(range(count)), value=[0.5] * count)
    whole = record(message)
    decode(whole, message, SCHEMA)
    begin = time.perf_counter()
    for _ in range(20):
        decode(whole, message, SCHEMA)
    spent = (time.perf_counter() - begin) / 20 / count
    tracemalloc.start()
    kept = decode(whole, message, SCHEMA)
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert size < 60 * count, f"{size / count} bytes a reading"
    assert spent < 2e-6, f"{spent * 1e9:.0f} ns a reading"
    assert len(kept.chunk.point) == count
