"""Messages refuse everything that is not exactly what they say, and survive the trip through bytes unchanged."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire import codec
from wire.errors import BadData
from wire.messages import (
    MAX_FRAME_BYTES,
    Ack,
    AckItem,
    Alive,
    Frame,
    GapBody,
    PointDecl,
    Predecessor,
    ReadingsBody,
    Record,
    ResultBody,
    SchemaBody,
    State,
)


def readings(**changes: Any) -> dict[str, Any]:
    body: dict[str, Any] = {
        "kind": "readings", "schema_hash": "ab", "base": 1_000, "point": [0, 1], "dt": [0, 5], "value": [1.0, 2.0],
    }  # fmt: skip
    body.update(changes)
    return {"v": 1, "records": [{"source": "n/e", "stream": "telemetry", "epoch": 7, "seq": 0, "body": body}]}


def decode(frame: dict[str, Any]) -> Frame:
    return codec.decode(Frame, json.dumps(frame).encode())


BODIES = [
    SchemaBody(
        schema_hash="ab",
        config_hash="cd",
        points=[PointDecl(device="d", point="p", unit="K", device_unit="degC", writable=True)],
        predecessor=Predecessor(epoch=3, last_seq=9),
    ),
    ReadingsBody(schema_hash="ab", base=5, point=[0, 0, 1], dt=[0, 1, 2], value=[1.5, -2.0], quality=[0, 129, 64]),
    ReadingsBody(schema_hash="ab", base=5, point=[0], dt=[0], value=[], side=[(0, 2**60)], ordinal=[1], lag=[7]),
    GapBody(last_seq=12, count=100, start=1, end=2, points=[0, 3]),
    ResultBody(
        cmd_id="c", device="d", point="p", state=State.MISMATCH, reason="readback", at=9, term=1, revision=2, value=0.5
    ),
]


@pytest.mark.parametrize("body", BODIES, ids=lambda body: str(body.kind))
def test_a_record_survives_the_trip(body: Any) -> None:
    record = Record(source="n/e", stream="telemetry", epoch=7, seq=3, body=body)
    frame = codec.decode(Frame, codec.join_frame([codec.encode_record(record)] * 2))
    assert frame.records == [record, record]


def test_a_gap_accounts_for_the_records_it_replaces() -> None:
    gap = Record(source="n/e", stream="telemetry", epoch=7, seq=3, body=GapBody(last_seq=12, count=1, start=1, end=2))
    assert gap.last_seq == 12


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"value": [True, 2.0]}, "value.0"),
        ({"value": ["1.0", 2.0]}, "value.0"),
        ({"value": [1.0]}, "1 values for 2 rows"),
        ({"dt": [0]}, "column dt"),
        ({"dt": [-1, 0]}, "negative"),
        ({"point": [-1, 0]}, "negative"),
        ({"quality": [0, 129]}, "1 bad"),
        ({"extra": 1}, "extra"),
        ({"kind": "reading"}, "body"),
        ({"base": -1}, "base"),
        ({"base": 1.5}, "base"),
    ],
)
def test_a_wrong_column_is_malformed_and_the_place_is_named(changes: dict[str, Any], place: str) -> None:
    with pytest.raises(BadData) as caught:
        decode(readings(**changes))
    assert caught.value.reason == "malformed"
    assert place in caught.value.detail


@pytest.mark.parametrize(
    ("field", "value"), [("epoch", 1 << 62), ("epoch", 10**30), ("seq", (1 << 62) + 1), ("seq", -2), ("epoch", -1)]
)
def test_an_identity_fits_every_store(field: str, value: int) -> None:
    frame = readings()
    frame["records"][0][field] = value
    with pytest.raises(BadData, match=f"malformed.*{field}"):
        decode(frame)


def test_a_gap_goes_forward() -> None:
    frame = readings()
    frame["records"][0] |= {"seq": 9, "body": {"kind": "gap", "last_seq": 8, "count": 1, "start": 0, "end": 0}}
    with pytest.raises(BadData, match="a gap from 9 to 8"):
        decode(frame)


@pytest.mark.parametrize("token", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_are_finite(token: str) -> None:
    payload = json.dumps(readings()).replace("2.0", token).encode()
    with pytest.raises(BadData, match="malformed"):
        codec.decode(Frame, payload)


def test_an_unknown_version_is_told_apart() -> None:
    with pytest.raises(BadData, match="version"):
        decode({**readings(), "v": 2})


def test_oversize_is_refused_before_parsing() -> None:
    with pytest.raises(BadData, match="oversize"):
        codec.decode(Frame, b"{" * (MAX_FRAME_BYTES + 1))


@given(st.binary(max_size=200))
def test_no_bytes_make_the_decoder_raise_anything_else(payload: bytes) -> None:
    for kind in (Frame, Ack, Alive):
        try:
            codec.decode(kind, payload)
        except BadData as refused:
            assert refused.reason in ("malformed", "version", "oversize")


@given(st.data())
def test_truncated_payloads_are_malformed(data: st.DataObject) -> None:
    payload = codec.encode(Ack(items=[AckItem(source="n/e", stream="results", epoch=1, seq=4)]))
    cut = data.draw(st.integers(0, len(payload) - 1))
    with pytest.raises(BadData, match="malformed"):
        codec.decode(Ack, payload[:cut])


def test_exactly_eight_states_are_final() -> None:
    assert sum(state.final for state in State) == 8
