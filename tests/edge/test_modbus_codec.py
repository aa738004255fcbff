"""The Modbus codec: known words, and every number survives writing and reading in every order."""

from __future__ import annotations

import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.drivers import modbus_codec as codec
from wire.errors import BadData, Rejected

ORDERS = ("abcd", "badc", "cdab", "dcba")
INTEGERS = {"int16": 16, "uint16": 16, "int32": 32, "uint32": 32, "int64": 64, "uint64": 64}
FLOATS = {"float16": 16, "float32": 32, "float64": 64}


@pytest.mark.parametrize(
    ("order", "words"),
    [("abcd", [0x0A0B, 0x0C0D]), ("badc", [0x0B0A, 0x0D0C]), ("cdab", [0x0C0D, 0x0A0B]), ("dcba", [0x0D0C, 0x0B0A])],
)
def test_the_four_orders_of_a_manual(order: codec.Order, words: list[int]) -> None:
    assert codec.encode_number(0x0A0B0C0D, "uint32", order) == words
    assert codec.decode_number(words, "uint32", order) == 0x0A0B0C0D


def test_known_float() -> None:
    assert codec.decode_number([0x42F6, 0xE979], "float32") == pytest.approx(123.456)
    assert codec.decode_number([0xE979, 0x42F6], "float32", "cdab") == pytest.approx(123.456)


@given(st.sampled_from(sorted(INTEGERS)), st.sampled_from(ORDERS), st.data())
def test_every_integer_comes_back(kind: codec.Number, order: codec.Order, data: st.DataObject) -> None:
    bits = INTEGERS[kind]
    low, high = (0, 2**bits - 1) if kind.startswith("u") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    value = data.draw(st.integers(low, high))
    registers = codec.encode_number(value, kind, order)
    assert len(registers) == codec.words(kind)
    assert codec.decode_number(registers, kind, order) == value
    with pytest.raises(Rejected, match="unrepresentable"):
        codec.encode_number(high + 1, kind, order)


@given(st.sampled_from(sorted(FLOATS)), st.sampled_from(ORDERS), st.data())
def test_every_float_comes_back(kind: codec.Number, order: codec.Order, data: st.DataObject) -> None:
    value = data.draw(st.floats(width=FLOATS[kind], allow_nan=False, allow_infinity=False))
    assert codec.decode_number(codec.encode_number(value, kind, order), kind, order) == value


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("kind", ["uint16", "float32"])
def test_nothing_infinite_is_written(kind: codec.Number, value: float) -> None:
    with pytest.raises(Rejected, match="unrepresentable"):
        codec.encode_number(value, kind)


@given(st.integers(0, 0xFFFF), st.integers(0, 15), st.booleans(), st.sampled_from(ORDERS))
def test_setting_a_bit_changes_only_that_bit(register: int, bit: int, value: bool, order: codec.Order) -> None:
    changed = codec.set_bit(register, bit, value, order)
    assert codec.get_bit(changed, bit, order) is value
    others = [codec.get_bit(changed, other, order) == codec.get_bit(register, other, order) for other in range(16)]
    assert all(same for other, same in enumerate(others) if other != bit)


@pytest.mark.parametrize(("order", "words"), [("abcd", [0x4869, 0x2100]), ("badc", [0x6948, 0x0021])])
def test_text(order: codec.Order, words: list[int]) -> None:
    assert codec.decode_text(words, order) == "Hi!"


def test_text_that_is_none() -> None:
    with pytest.raises(BadData, match="text"):
        codec.decode_text(list(struct.unpack(">2H", b"\xff\xfe\xff\xfe")))
