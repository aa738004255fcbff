"""The read planner: few requests, none too long, every point in exactly one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edge.drivers.modbus_plan import Block, Span, bisect, plan

TABLES = st.sampled_from(["coil", "discrete", "holding", "input"])
SPANS = st.lists(st.tuples(TABLES, st.integers(0, 400), st.integers(1, 4)), min_size=1, max_size=60).map(
    lambda items: [Span(point, *item) for point, item in enumerate(items)]
)


def test_a_hundred_tags_in_three_areas_take_few_requests() -> None:
    spans = [Span(i, ("holding", "input", "coil")[i % 3], 2 * (i // 3), 1) for i in range(100)]
    assert len(plan(spans, gap=8, max_registers=125, max_bits=2000)) == 3


@given(SPANS, st.integers(0, 20), st.integers(4, 125))
def test_every_point_is_read_once_within_the_limits(spans: list[Span], gap: int, most: int) -> None:
    blocks = plan(spans, gap=gap, max_registers=most, max_bits=most)
    assert sorted(point for block in blocks for point in block.points) == list(range(len(spans)))
    for block in blocks:
        assert block.length <= most
        assert all(span.table == block.table for span in block.spans)
        assert all(block.start <= span.start for span in block.spans)
        assert all(span.start + span.length <= block.start + block.length for span in block.spans)
        covered = {at for span in block.spans for at in range(span.start, span.start + span.length)}
        unwanted = "".join(" " if at in covered else "x" for at in range(block.start, block.start + block.length))
        assert max((len(run) for run in unwanted.split()), default=0) <= gap


@given(SPANS, st.integers(0, 59))
def test_bisection_finds_one_illegal_point(spans: list[Span], illegal: int) -> None:
    illegal %= len(spans)
    blocks, asked, good = plan(spans, gap=8, max_registers=125, max_bits=125), 0, set()
    bad: set[int] = set()
    while blocks:
        block = blocks.pop()
        asked += 1
        if illegal not in block.points:
            good |= set(block.points)
        elif len(block.spans) == 1:
            bad |= set(block.points)
        else:
            blocks += bisect(block)
    assert bad == {illegal}
    assert good == set(range(len(spans))) - {illegal}


def test_halves_drop_what_lies_between() -> None:
    block = Block("input", 0, 20, (Span(0, "input", 0, 2), Span(1, "input", 18, 2)))
    assert [(half.start, half.length) for half in bisect(block)] == [(0, 2), (18, 2)]
