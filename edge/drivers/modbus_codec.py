"""Modbus words to values and back: one rule for reading and writing.

``order`` is written as device manuals do, for a 32-bit number whose big-endian bytes are a b c d: ``abcd`` big-endian,
``badc`` bytes swapped inside each word, ``cdab`` words swapped, ``dcba`` both. Numbers of 64 bits follow the same two
rules. Words swapped is the same as little-endian with the bytes of each word swapped, so two struct formats and one
byte swap cover all four orders.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from functools import cache
from types import MappingProxyType
from typing import Literal

from wire.errors import BadData, Rejected

Number = Literal["int16", "uint16", "int32", "uint32", "int64", "uint64", "float16", "float32", "float64"]
Type = Literal[Number, "bool", "string"]
Order = Literal["abcd", "badc", "cdab", "dcba"]

_CODES = MappingProxyType(
    {
        "int16": "h",
        "uint16": "H",
        "int32": "i",
        "uint32": "I",
        "int64": "q",
        "uint64": "Q",
        "float16": "e",
        "float32": "f",
        "float64": "d",
    }
)


def words(kind: Type, length: int = 1) -> int:
    """How many registers a value takes; ``length`` is the registers of a string."""
    if kind == "string":
        return length
    return struct.calcsize(_CODES[kind]) // 2 if kind in _CODES else 1


@cache
def number_format(kind: Number, order: Order) -> tuple[struct.Struct, bool]:
    """The struct of a number and whether it applies to `swapped` bytes."""
    return struct.Struct(("<" if order in ("cdab", "dcba") else ">") + _CODES[kind]), order in ("badc", "cdab")


def pack_words(registers: Sequence[int]) -> bytes:
    """Registers as they were on the wire."""
    return struct.pack(f">{len(registers)}H", *registers)


def swapped(data: bytes) -> bytes:
    """The two bytes of each word exchanged."""
    count = len(data) // 2
    return struct.pack(f"<{count}H", *struct.unpack(f">{count}H", data))


def decode_number(registers: Sequence[int], kind: Number, order: Order = "abcd") -> int | float:
    """The number in these registers."""
    form, swap = number_format(kind, order)
    data = pack_words(registers)
    value: int | float = form.unpack(swapped(data) if swap else data)[0]
    return value


def encode_number(value: float, kind: Number, order: Order = "abcd") -> list[int]:
    """Registers that hold a raw value, integers rounded to the nearest.

    Raises Rejected("unrepresentable") for what the type cannot hold.
    """
    form, swap = number_format(kind, order)
    if not math.isfinite(value):
        raise Rejected("unrepresentable", f"{value!r} is not finite")
    try:
        data = form.pack(value if kind.startswith("float") else round(value))
    except (struct.error, OverflowError):
        raise Rejected("unrepresentable", f"{value!r} does not fit {kind}") from None
    data = swapped(data) if swap else data
    return list(struct.unpack(f">{len(data) // 2}H", data))


def decode_text(registers: Sequence[int], order: Order = "abcd") -> str:
    """Text up to the first zero byte; BadData("text") if it is not UTF-8."""
    data = pack_words(registers)
    data = swapped(data) if order in ("badc", "dcba") else data
    try:
        return data.split(b"\0", 1)[0].decode()
    except UnicodeDecodeError:
        raise BadData("text", "not UTF-8") from None


def get_bit(register: int, bit: int | None, order: Order = "abcd") -> bool:
    """One bit of a register, 0 the least significant; None: true unless the whole register is zero."""
    return register != 0 if bit is None else bool(register >> _place(bit, order) & 1)


def set_bit(register: int, bit: int | None, value: bool, order: Order = "abcd") -> int:
    """A register with one bit changed; None: the whole register becomes 1 or 0."""
    if bit is None:
        return int(value)
    mask = 1 << _place(bit, order)
    return register | mask if value else register & ~mask


def _place(bit: int, order: Order) -> int:
    return bit ^ 8 if order in ("badc", "dcba") else bit
