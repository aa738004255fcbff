"""Which requests read all points of a Modbus unit: spans coalesced across small gaps, and mended after a refusal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

Table = Literal["coil", "discrete", "holding", "input"]


class Span(NamedTuple):
    """Where one point lives: ``length`` bits or registers from ``start``."""

    point: int
    table: Table
    start: int
    length: int


class Block(NamedTuple):
    """One request and the points that its answer holds, in address order."""

    table: Table
    start: int
    length: int
    spans: tuple[Span, ...]

    @property
    def points(self) -> list[int]:
        return [span.point for span in self.spans]


def plan(spans: Iterable[Span], *, gap: int, max_registers: int, max_bits: int) -> list[Block]:
    """The fewest blocks that respect the device's largest answer and read at most ``gap`` unwanted words in a row."""
    blocks: list[Block] = []
    group: list[Span] = []
    for span in sorted(spans, key=lambda span: (span.table, span.start, span.length, span.point)):
        limit = max_bits if span.table in ("coil", "discrete") else max_registers
        if group and not _joins(group, span, gap, limit):
            blocks.append(_block(group))
            group = []
        group.append(span)
    return [*blocks, _block(group)] if group else blocks


def bisect(block: Block) -> tuple[Block, Block]:
    """Two halves by points, so that an illegal address is found in log2 steps; the words between them are dropped."""
    middle = len(block.spans) // 2
    return _block(block.spans[:middle]), _block(block.spans[middle:])


def _joins(group: Sequence[Span], span: Span, gap: int, limit: int) -> bool:
    end = max(each.start + each.length for each in group)
    longest = max(end, span.start + span.length) - group[0].start
    return span.table == group[0].table and span.start - end <= gap and longest <= limit


def _block(spans: Sequence[Span]) -> Block:
    start = spans[0].start
    end = max(span.start + span.length for span in spans)
    return Block(spans[0].table, start, end - start, tuple(spans))
