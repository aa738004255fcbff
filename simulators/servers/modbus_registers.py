"""Numbers to Modbus words and back, written for the device's side alone: an oracle for the reader's codec.

``order`` is what manuals print for the four bytes of a 32-bit number sent as a b c d: ``abcd`` is big-endian, ``badc``
swaps the bytes of each word, ``cdab`` the words, ``dcba`` both.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from types import MappingProxyType
from typing import Literal

from wire.errors import Rejected

Type = Literal["bool", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float16", "float32", "float64"]
Order = Literal["abcd", "badc", "cdab", "dcba"]

LETTERS = MappingProxyType(
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


def width(kind: Type) -> int:
    """Registers that a number takes; a bool takes one bit or one register."""
    return 1 if kind == "bool" else struct.calcsize(f">{LETTERS[kind]}") // 2


def to_words(raw: float, kind: Type, order: Order) -> list[int]:
    """The registers of a raw number; an integer that does not fit is clipped, as a converter saturates."""
    if kind == "bool":
        return [int(raw != 0)]
    letter = LETTERS[kind]
    number = raw if kind.startswith("float") else _saturated(round(raw), kind)
    return _swap(list(struct.unpack(f">{width(kind)}H", struct.pack(f">{letter}", number))), order)


def from_words(words: Sequence[int], kind: Type, order: Order) -> float:
    """The raw number in registers; Rejected("value") for a NaN or an infinity."""
    if kind == "bool":
        return float(words[0] != 0)
    plain = _swap(list(words), order)
    number = float(struct.unpack(f">{LETTERS[kind]}", struct.pack(f">{len(plain)}H", *plain))[0])
    if number - number != 0.0:
        raise Rejected("value", f"{number} is not finite")
    return number


def _saturated(number: int, kind: Type) -> int:
    bits = int(kind.lstrip("uint"))
    low, high = (0, (1 << bits) - 1) if kind.startswith("u") else (-(1 << bits - 1), (1 << bits - 1) - 1)
    return min(max(number, low), high)


def _swap(words: list[int], order: Order) -> list[int]:
    """To or from ``order``: every order undoes itself."""
    if order in ("badc", "dcba"):
        words = [word >> 8 | (word & 0xFF) << 8 for word in words]
    return words[::-1] if order in ("cdab", "dcba") else words
