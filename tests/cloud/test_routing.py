"""Readings find their channels: against a plain loop over rows, and by hand for each fate."""

from __future__ import annotations

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from cloud.columns import Schema
from cloud.history.base import RawChunk
from cloud.routing import Fate, Link, bindings, compile_routes, fates, join, route, select
from cloud.twins.model import ActuatorDef, Binding, InputDef, SensorDef, Twin
from tests.cloud.estimation.models import ONE, driven
from tests.cloud.site import POINTS, SOURCE, bound, point, schema
from wire.quality import Quality

SCHEMA = Schema.of(SOURCE, schema())
QUALITIES = [0, 5, 64, Quality.UNCERTAIN_CLOCK, Quality.UNCERTAIN_AHEAD, 128, Quality.BAD_RANGE]


def chunk(rows: list[tuple[int, int]], side: dict[int, int | str] | None = None) -> RawChunk:
    """Rows (point, quality); the value is the row's number."""
    value = np.arange(len(rows), dtype=np.float64)
    value[[row for row, (_, quality) in enumerate(rows) if quality >= 128]] = np.nan
    value[list(side or {})] = np.nan
    return RawChunk(
        source=SOURCE,
        epoch=1,
        seq=0,
        points=SCHEMA.points,
        point=np.array([row[0] for row in rows], dtype=np.int64),
        time=np.arange(len(rows), dtype=np.int64) * 10,
        ordinal=np.arange(len(rows), dtype=np.int64) % 2,
        value=value,
        quality=np.array([row[1] for row in rows], dtype=np.uint8),
        side=side or {},
    )


links = st.dictionaries(
    st.sampled_from(POINTS),
    st.lists(st.builds(Link, st.integers(0, 9), st.integers(0, 3), st.integers(0, 99), st.sampled_from(["1", "m"]))),
)


@example({"u0": [Link(7, 2, 5, "1"), Link(8, 0, 6, "m")]}, [(0, quality) for quality in QUALITIES])
@given(links, st.lists(st.tuples(st.integers(0, len(POINTS) - 1), st.sampled_from(QUALITIES)), max_size=20))
def test_routing_is_a_loop_over_rows_and_links(links: dict[str, list[Link]], rows: list[tuple[int, int]]) -> None:
    given_ = chunk(rows)
    routed = route(given_, compile_routes(SCHEMA, {point(name): own for name, own in links.items()}))
    expected = []
    for row, (index, quality) in enumerate(rows):
        for link in links.get(POINTS[index], []):
            good = link.unit == "1" and quality < 128 and quality != Quality.UNCERTAIN_AHEAD
            noise = 1.0 if quality < 64 else 3.0
            expected.append((row, link.slot, link.handle, link.channel, row * 10, row % 2, noise, good))
    events = routed.events
    columns = (routed.row, routed.slot, events.twin, events.channel, events.time, events.origin, events.noise)
    assert list(zip(*(column.tolist() for column in (*columns, routed.good)), strict=True)) == expected
    values = select(events, routed.good).value
    assert values.tolist() == [float(row) for row, *_, good in expected if good]
    assert join([events, events]).time.tolist() == events.time.tolist() * 2


def test_every_reading_has_one_fate() -> None:
    rows = [(0, 0), (1, 0), (2, 0), (0, 66), (0, 129), (0, 0), (3, 129), (4, 66)]
    routes = compile_routes(
        SCHEMA,
        {
            point("u0"): [Link(0, 0, 0, "1"), Link(1, 0, 1, "K")],
            point("u1"): [Link(2, 0, 2, "K")],
        },
    )
    given_ = chunk(rows, side={5: "auto"})
    fate = fates(given_, route(given_, routes))
    assert [Fate(code) for code in fate] == [
        Fate.REFUSED,  # until the bank has said better
        Fate.UNIT,
        Fate.UNBOUND,
        Fate.AHEAD,
        Fate.BAD,
        Fate.TYPED,
        Fate.BAD,
        Fate.AHEAD,
    ]


def test_an_actuators_input_is_its_read_back_point() -> None:
    kind = driven()
    inputs = (InputDef("u0", ONE, 0.0, actuator="pump"), InputDef("u1", ONE, 0.0))
    pump = ActuatorDef("pump", ONE, 0.0, 1.0, None, 30.0, 0.0, 0.1, 0.1, 0.1)
    fields = {name: getattr(kind, name) for name in kind.__dataclass_fields__}
    acted = type(kind)(**{**fields, "inputs": inputs, "actuators": (pump,)})
    twin = Twin("a", acted, np.zeros(0), {"s1": point("s1")}, {"pump": Binding(point("loose"), point("u0"))})
    assert list(bindings(twin)) == [(0, "1", point("u0")), (3, "1", point("s1"))]
    assert [index for index, _, _ in bindings(bound(kind, "b"))] == [0, 1, 2, 3]
    assert isinstance(kind.sensors[0], SensorDef)
