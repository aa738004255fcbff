"""Turns the answer to one block into rows, with one struct call for all numbers of the same byte order."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from edge.drivers import modbus_codec as codec
from edge.drivers.base import Samples
from edge.drivers.modbus_plan import Block, Span
from wire.errors import BadData
from wire.quality import Quality

Decoder = Callable[[Sequence[int], Samples], None]
EXACT = 1 << 53
"""Beyond it a float cannot hold every integer."""


class Layout(Protocol):
    """What decoding needs to know of an address."""

    @property
    def type(self) -> codec.Type: ...
    @property
    def order(self) -> codec.Order: ...
    @property
    def bit(self) -> int | None: ...
    @property
    def scale(self) -> float: ...
    @property
    def offset(self) -> float: ...
    @property
    def plain(self) -> bool: ...


class _Numbers(NamedTuple):
    """Numbers of one byte order that do not overlap."""

    form: struct.Struct
    swap: bool
    points: list[int]
    scales: list[float]
    offsets: list[float]

    def add(self, data: bytes, samples: Samples) -> None:
        raw = self.form.unpack_from(data)
        values = [value * scale + offset for value, scale, offset in zip(raw, self.scales, self.offsets, strict=True)]
        samples.point += self.points
        samples.time += [0] * len(values)
        samples.value += values
        samples.quality += [0] * len(values)


def decoder_of(block: Block, points: Sequence[Layout]) -> Decoder:
    """A function that adds every point of the block to samples, given the block's registers or bits."""
    if block.table in ("coil", "discrete"):
        return _bits(block)
    fast = [span for span in block.spans if _is_fast(points[span.point])]
    single = [span for span in block.spans if span not in fast]
    groups = _group(block, fast, points)
    swap = any(group.swap for group in groups)

    def decode(registers: Sequence[int], samples: Samples) -> None:
        data = codec.pack_words(registers)
        turned = codec.swapped(data) if swap else b""
        for group in groups:
            group.add(turned if group.swap else data, samples)
        for span in single:
            at = span.start - block.start
            _add_single(span.point, points[span.point], registers[at : at + span.length], samples)

    return decode


def _bits(block: Block) -> Decoder:
    places = [(span.point, span.start - block.start) for span in block.spans]

    def decode(bits: Sequence[int], samples: Samples) -> None:
        for point, at in places:
            samples.add(point, float(bits[at]))

    return decode


def _is_fast(address: Layout) -> bool:
    return address.type not in ("bool", "string") and not (address.plain and address.type in ("int64", "uint64"))


def _group(block: Block, spans: Sequence[Span], points: Sequence[Layout]) -> list[_Numbers]:
    groups: list[_Numbers] = []
    rest = list(spans)
    while rest:
        order = points[rest[0].point].order
        taken: list[Span] = []
        text, end = (">" if order in ("abcd", "badc") else "<"), block.start
        for span in rest:
            if points[span.point].order == order and span.start >= end:
                code = codec.number_format(points[span.point].type, order)[0].format[1:]
                text += f"{(span.start - end) * 2}x{code}"
                end = span.start + span.length
                taken.append(span)
        rest = [span for span in rest if span not in taken]
        own = [points[span.point] for span in taken]
        groups.append(
            _Numbers(
                struct.Struct(text),
                order in ("badc", "cdab"),
                [span.point for span in taken],
                [address.scale for address in own],
                [address.offset for address in own],
            )
        )
    return groups


def _add_single(point: int, address: Layout, registers: Sequence[int], samples: Samples) -> None:
    if address.type == "bool":
        samples.add(point, float(codec.get_bit(registers[0], address.bit, address.order)))
        return
    try:
        value = _side_value(address, registers)
    except BadData:
        samples.add(point, 0.0, Quality.BAD_TYPE)
        return
    if isinstance(value, int) and abs(value) <= EXACT:
        samples.add(point, float(value))
        return
    samples.side[len(samples.point)] = value
    samples.add(point, 0.0)


def _side_value(address: Layout, registers: Sequence[int]) -> int | str:
    if address.type == "string":
        return codec.decode_text(registers, address.order)
    return int(codec.decode_number(registers, address.type, address.order))  # type: ignore[arg-type]
