"""Units to SI, ranges, clocks and deadbands; every row in one counted fate."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.normalise import Columns, Rule, columns, replaced, schema_to_si, to_si
from wire.codec import decode, encode_record
from wire.errors import BadData
from wire.messages import PointDecl, ReadingsBody, Record, SchemaBody
from wire.quality import Quality

NOW = 1_800_000_000_000_000_000


def schema(*units: str) -> SchemaBody:
    points = [PointDecl(device="tank", point=f"p{i}", unit=unit, device_unit=unit) for i, unit in enumerate(units)]
    return SchemaBody(schema_hash="h", config_hash="c", points=points)


def body(rows: list[tuple[int, float]], **columns: object) -> ReadingsBody:
    """Rows of (point, value), a millisecond apart, the first a second ago."""
    given: dict[str, object] = {
        "schema_hash": "h",
        "base": NOW - 1_000_000_000,
        "point": [point for point, _ in rows],
        "dt": [i * 1_000_000 for i in range(len(rows))],
        "value": [value for _, value in rows],
    }
    return ReadingsBody.model_validate(given | columns)


def by(*units: str, **rules: Rule) -> Columns:
    return columns(schema(*units), {("tank", name): rule for name, rule in rules.items()})


def test_levels_take_the_offset_and_the_schema_says_si() -> None:
    out = to_si(body([(0, 12.5), (1, 20.0), (2, 50.0)]), by("cm", "degC", "%"), NOW, {}).body
    assert out.value == pytest.approx([0.125, 293.15, 0.5])
    said, unknown = schema_to_si(schema("cm", "degC", "%"))
    assert [point.unit for point in said.points] == ["m", "K", "1"]
    assert [point.device_unit for point in said.points] == ["cm", "degC", "%"]
    assert said.schema_hash == "h"
    assert unknown == ()


def test_a_normalised_schema_still_tells_how_to_convert() -> None:
    """The gateway keeps only what it forwarded; after a restart that must be enough."""
    once = schema("cm", "degF")
    assert columns(schema_to_si(once)[0], {}) == columns(once, {})


def test_an_unknown_unit_makes_the_reading_bad_and_keeps_its_row() -> None:
    known, unknown = schema_to_si(schema("cm", "furlongfortnight"))
    assert known.points[1].unit == "furlongfortnight"
    assert len(unknown) == 1
    assert "tank/p1" in unknown[0]
    out = to_si(body([(0, 1.0), (1, 2.0)]), by("cm", "furlongfortnight"), NOW, {}).body
    assert out.point == [0, 1]
    assert out.quality == [Quality.GOOD, Quality.BAD_TYPE]
    assert out.value == pytest.approx([0.01])


def test_a_stamp_ahead_is_kept_and_flagged_at_two_seconds() -> None:
    late = body([(0, 1.0), (0, 2.0)], dt=[3_000_000_000, 3_000_000_001])
    out = to_si(late, by("m"), NOW, {}).body
    assert out.quality == [Quality.GOOD, Quality.UNCERTAIN_AHEAD]
    assert out.value == [1.0, 2.0]


def test_a_bad_reading_stays_bad_for_its_own_reason_even_if_ahead() -> None:
    late = body([(0, 1.0)], point=[0, 0], dt=[0, 9_000_000_000], quality=[0, Quality.BAD_TIMEOUT])
    assert to_si(late, by("m"), NOW, {}).body.quality == [Quality.GOOD, Quality.BAD_TIMEOUT]


def test_out_of_range_has_a_reason_instead_of_a_value() -> None:
    rules = by("cm", p0=Rule(low=0.0, high=25.0))
    out = to_si(body([(0, 25.0), (0, 25.1), (0, -0.1)]), rules, NOW, {}).body
    assert out.quality == [Quality.GOOD, Quality.BAD_RANGE, Quality.BAD_RANGE]
    assert out.value == [0.25]


def test_a_conversion_that_overflows_is_not_finite() -> None:
    out = to_si(body([(0, 1e308), (0, 1.0)]), by("km"), NOW, {}).body
    assert out.quality == [Quality.BAD_NOT_FINITE, Quality.GOOD]
    assert out.value == [1000.0]


def test_values_whose_sum_overflows_are_still_good() -> None:
    out = to_si(body([(0, 1.7e308), (0, 1.7e308)]), by("m"), NOW, {}).body
    assert out.quality is None
    assert out.value == [1.7e308, 1.7e308]


def test_a_row_of_an_unknown_point_refuses_the_record_and_a_gap_stands_in() -> None:
    strange = body([(0, 1.0), (7, 2.0)])
    with pytest.raises(BadData, match="unknown-point"):
        to_si(strange, by("m"), NOW, {})
    gap = replaced(strange, 41)
    assert (gap.last_seq, gap.count, gap.reason) == (41, 2, "damage")
    assert (gap.start, gap.end) == (strange.base, strange.base + 1_000_000)


@pytest.mark.parametrize(
    ("reason", "columns"),
    [
        ("overflow", {"dt": [10**30]}),
        ("quality", {"quality": [-1]}),
        ("quality", {"quality": [256], "value": []}),
        ("side", {"side": [[1, "x"]], "value": []}),
        ("side", {"side": [[-1, "x"]], "value": []}),
        ("side", {"side": [[10**30, "x"]], "value": []}),
        ("unknown-point", {"point": [1], "dt": [10**30]}),
    ],
)
def test_columns_that_contradict_each_other_refuse_the_record(reason: str, columns: dict[str, object]) -> None:
    row = {"schema_hash": "s1", "base": NOW, "point": [0], "dt": [0], "value": [1.0]}
    wrong = ReadingsBody.model_validate_json(json.dumps({"kind": "readings"} | row | columns))
    with pytest.raises(BadData) as refused:
        to_si(wrong, by("cm"), NOW, {})
    assert refused.value.reason == reason
    assert replaced(wrong, 3).count == 1


def test_a_deadband_takes_rows_out_and_counts_them() -> None:
    rules = by("m", "m", p0=Rule(deadband=0.5))
    first = to_si(body([(0, 1.0), (0, 1.5), (1, 7.0), (0, 1.6)], ordinal=[0, 1, 2, 3]), rules, NOW, {})
    assert first.body.value == [1.0, 7.0, 1.6]
    assert first.body.ordinal == [0, 2, 3]
    assert first.body.filtered == 1
    second = to_si(body([(0, 1.7)]), rules, NOW, first.passed)
    assert (second.body.value, second.body.filtered) == ([], 1)


def test_typed_values_pass_untouched_beside_numbers() -> None:
    mixed = body([(0, 100.0)], point=[1, 0], dt=[0, 1], value=[100.0], side=[(0, "open")])
    out = to_si(mixed, by("cm", ""), NOW, {}).body
    assert out.side == [(0, "open")]
    assert out.value == [1.0]


numbers = st.floats(allow_nan=False, allow_infinity=False, width=64)
codes = st.sampled_from([0, 65, 67, 128, 129, 133])


@given(rows=st.lists(st.tuples(st.integers(0, 2), numbers, codes, st.integers(0, 4_000_000_000)), max_size=40))
def test_what_comes_out_is_always_a_valid_record_with_every_row(rows: list[tuple[int, float, int, int]]) -> None:
    sent = ReadingsBody(
        schema_hash="h",
        base=NOW - 1_000_000_000,
        point=[row[0] for row in rows],
        dt=[row[3] for row in rows],
        value=[row[1] for row in rows if row[2] < 128],
        quality=[row[2] for row in rows],
    )
    out = to_si(sent, by("cm", "nonsense", "kPa", p0=Rule(low=-1e3, high=1e3)), NOW, {}).body
    record = Record(source="site/edge", stream="telemetry", epoch=1, seq=0, body=out)
    again = decode(Record, encode_record(record))
    assert again.body == ReadingsBody.model_validate(out.model_dump())
    assert out.point == sent.point
    assert out.dt == sent.dt


@given(st.lists(st.tuples(st.integers(0, 1), numbers), max_size=30))
def test_the_fast_way_and_the_careful_way_agree(rows: list[tuple[int, float]]) -> None:
    plain = by("cm", "degC")
    careful = replace(plain, rules={0: Rule(low=-1e400)})
    fast, slow = to_si(body(rows), plain, NOW, {}).body, to_si(body(rows), careful, NOW, {}).body
    assert (fast.value, fast.quality, fast.point) == (slow.value, slow.quality, slow.point)
