"""Modbus TCP, and RTU frames over TCP.

pymodbus carries the frames; every reply is judged here (function code, transaction, unit, length, echo), because the
library accepts an answer to another question. Retries, reconnection and deadlines are not left to it either: after a
timeout the stream is reopened, so a late answer can never be taken for the next one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Annotated, ClassVar, Literal, NoReturn, Self

from pydantic import Field, model_validator
from pymodbus.client import AsyncModbusTcpClient
from pymodbus.exceptions import ModbusException
from pymodbus.framer import FramerType
from pymodbus.pdu import ExceptionResponse, ModbusPDU
from pymodbus.pdu.bit_message import ReadCoilsRequest, ReadDiscreteInputsRequest, WriteSingleCoilRequest
from pymodbus.pdu.register_message import (
    ReadHoldingRegistersRequest,
    ReadInputRegistersRequest,
    WriteMultipleRegistersRequest,
    WriteSingleRegisterRequest,
)

from edge.drivers import modbus_codec as codec
from edge.drivers.base import Samples
from edge.drivers.modbus_decode import Decoder, decoder_of
from edge.drivers.modbus_plan import Block, Span, Table, bisect, plan
from edge.drivers.own_deadline import deadline
from edge.drivers.scaled_address import Scaled
from wire.errors import BadData, Rejected, Unavailable
from wire.quality import Quality
from wire.settings import Duration, Settings

_READS = {
    "coil": ReadCoilsRequest,
    "discrete": ReadDiscreteInputsRequest,
    "holding": ReadHoldingRegistersRequest,
    "input": ReadInputRegistersRequest,
}
_BITS = ("coil", "discrete")
_ILLEGAL_ADDRESS = 2
_RETRY_REFUSED = 64
"""An address that the device refuses is asked again in one of so many cycles."""


class Config(Settings):
    """One unit behind one TCP port."""

    host: str
    port: Annotated[int, Field(ge=1, le=65_535)] = 502
    unit: Annotated[int, Field(ge=0, le=255)] = 1
    framing: Literal["tcp", "rtu"] = "tcp"
    """``rtu``: serial frames inside TCP, as simple serial servers send them."""
    timeout: Duration = 1.0
    """For one answer, and for the connection."""
    gap: Annotated[int, Field(ge=0, le=124)] = 8
    """Most unwanted registers or bits read in a row to save a request."""
    max_registers: Annotated[int, Field(ge=1, le=125)] = 125
    max_bits: Annotated[int, Field(ge=1, le=2000)] = 2000


def _usual_type(data: dict[str, object]) -> codec.Type:
    return "bool" if data.get("table") in _BITS else "uint16"


class Address(Scaled):
    """Where a point lives, addresses counted from zero, and how its words become a number."""

    table: Table
    address: Annotated[int, Field(ge=0, le=65_535)]
    type: codec.Type = Field(default_factory=_usual_type)
    """Of registers uint16 unless said otherwise; coils and discrete inputs are always bool."""
    order: codec.Order = "abcd"
    bit: Annotated[int, Field(ge=0, le=15)] | None = None
    """For ``bool`` in a register: which bit, 0 the least significant; unset: zero is false."""
    length: Annotated[int, Field(ge=1, le=125)] = 1
    """For ``string``: registers."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.table in _BITS and self.type != "bool":
            raise ValueError(f"a {self.table} holds a bool, not {self.type}")
        if self.bit is not None and self.type != "bool":
            raise ValueError("bit is only for type bool")
        if self.type in ("bool", "string") and not self.plain:
            raise ValueError(f"a {self.type} has no scale or offset")
        if self.address + self.words > 65_536:
            raise ValueError(f"{self.words} registers from {self.address} end beyond 65535")
        return self

    @property
    def words(self) -> int:
        """Registers (or bits) that the point takes."""
        return codec.words(self.type, self.length)

    @property
    def value_type(self) -> Literal["float", "int", "bool", "text"]:
        """What a reading of this point is."""
        if self.type in ("bool", "string"):
            return "bool" if self.type == "bool" else "text"
        return "int" if "int" in self.type and self.plain else "float"

    @property
    def readable(self) -> bool:
        return True

    @property
    def writable(self) -> bool:
        """Text and the read-only tables cannot be written."""
        return self.table in ("coil", "holding") and self.type != "string"


class Driver:
    """One Modbus unit, asked by polling."""

    pushes: ClassVar[bool] = False

    def __init__(
        self, config: Config, points: Sequence[Address], name: str = "modbus", polled: Sequence[int] | None = None
    ) -> None:
        self._config = config
        self._points = points
        self._name = name
        self._blocks = self._plan(range(len(points)) if polled is None else polled)
        self._decoders: dict[Block, Decoder] = {}
        self._refused: set[Block] = set()
        self._cycle = 0
        self._client: AsyncModbusTcpClient | None = None

    async def __aenter__(self) -> Self:
        await self._open()
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._close()

    async def read(self) -> Samples:
        """Every polled point; a refused or garbled block is bad rows, two silent blocks in a row are Unavailable."""
        samples = Samples()
        self._cycle += 1
        todo, silent = list(self._blocks), 0
        while todo:
            block = todo.pop(0)
            if block in self._refused and self._cycle % _RETRY_REFUSED:
                _mark(samples, block, Quality.BAD_ADDRESS)
                continue
            try:
                answer = await self._ask(block)
            except Unavailable:
                silent += 1
                if silent > 1 or len(self._blocks) == 1:
                    raise
                await self._reopen_after(block)
                _mark(samples, block, Quality.BAD_TIMEOUT)
                continue
            silent = 0
            if isinstance(answer, Quality):
                todo[:0] = self._refuse(samples, block, answer)
            else:
                self._refused.discard(block)
                self._decoder(block)(answer, samples)
        return samples

    async def fetch(self, point: int) -> Samples:
        samples = Samples()
        (block,) = self._plan([point])
        answer = await self._ask(block)
        if isinstance(answer, Quality):
            _mark(samples, block, answer)
        else:
            self._decoder(block)(answer, samples)
        return samples

    async def write(self, point: int, value: float) -> None:
        address = self._points[point]
        if not address.writable:
            raise Rejected("read-only", f"{address.table} {address.address}")
        request: ModbusPDU
        if address.table == "coil":
            request = WriteSingleCoilRequest(address=address.address, bits=[_truth(value)], dev_id=self._config.unit)
        else:
            request = self._register_write(address.address, await self._registers_for(address, value))
        try:
            reply = await self._execute(request)
        except BadData as error:
            raise Rejected("device/reply", error.detail) from None
        if isinstance(reply, ExceptionResponse):
            raise Rejected(f"device/{reply.exception_code}")
        if not _echoes(request, reply):
            raise Rejected("device/reply", "the device confirmed another write")

    async def _registers_for(self, address: Address, value: float) -> list[int]:
        if address.type == "string":
            raise Rejected("type", "text cannot be written")
        if address.type != "bool":
            return codec.encode_number(address.raw(value), address.type, address.order)
        held = 0
        if address.bit is not None:
            answer = await self._ask(Block("holding", address.address, 1, (Span(0, "holding", address.address, 1),)))
            if isinstance(answer, Quality):
                raise Rejected("device/read", f"register {address.address} is {answer.label}, so no bit of it is set")
            held = answer[0]
        return [codec.set_bit(held, address.bit, _truth(value), address.order)]

    def _register_write(self, start: int, registers: list[int]) -> ModbusPDU:
        if len(registers) == 1:
            return WriteSingleRegisterRequest(address=start, registers=registers, dev_id=self._config.unit)
        return WriteMultipleRegistersRequest(address=start, registers=registers, dev_id=self._config.unit)

    async def _ask(self, block: Block) -> list[int] | Quality:
        """The registers or bits of a block, or why there are none."""
        request = _READS[block.table](address=block.start, count=block.length, dev_id=self._config.unit)
        try:
            reply = await self._execute(request)
        except BadData:
            return Quality.BAD_REPLY
        if isinstance(reply, ExceptionResponse):
            return Quality.BAD_ADDRESS if reply.exception_code == _ILLEGAL_ADDRESS else Quality.BAD_DEVICE
        if block.table in _BITS:
            whole = len(reply.bits) == (block.length + 7) // 8 * 8
            return [int(bit) for bit in reply.bits[: block.length]] if whole else Quality.BAD_REPLY
        return list(reply.registers) if len(reply.registers) == block.length else Quality.BAD_REPLY

    async def _execute(self, request: ModbusPDU) -> ModbusPDU:
        """One question and the answer to it; BadData("reply") if it answers another one, Unavailable if none comes."""
        if self._client is None or not self._client.connected:
            raise Unavailable(f"{self._name}: connection lost")
        try:
            async with deadline(self._config.timeout):
                call: Awaitable[ModbusPDU] = self._client.execute(False, request)
                reply = await call
        except TimeoutError:
            self._fail("no answer")
        except ModbusException as error:
            self._fail(str(error))
        if (reply.function_code & 0x7F, reply.transaction_id) != (request.function_code, request.transaction_id):
            raise BadData("reply", f"function {reply.function_code} answers function {request.function_code}")
        return reply

    def _fail(self, reason: str) -> NoReturn:
        self._close()
        raise Unavailable(f"{self._name}: {reason}")

    async def _open(self) -> None:
        framer = FramerType.RTU if self._config.framing == "rtu" else FramerType.SOCKET
        self._client = AsyncModbusTcpClient(
            self._config.host,
            port=self._config.port,
            framer=framer,
            name=self._name,
            reconnect_delay=0,
            timeout=self._config.timeout * 2,
            retries=0,
        )
        try:
            async with deadline(self._config.timeout):
                up = await self._client.connect()
        except TimeoutError:
            up = False
        if not up:
            self._fail(f"no connection to {self._config.host}:{self._config.port}")

    def _close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close()

    async def _reopen_after(self, block: Block) -> None:
        """Resynchronise, and ask the silent block last from now on."""
        self._close()
        self._blocks.remove(block)
        self._blocks.append(block)
        await self._open()

    def _refuse(self, samples: Samples, block: Block, quality: Quality) -> tuple[Block, ...]:
        """Mark a failed block, or cut it where an illegal address can be in it; returns what to ask again."""
        if quality is not Quality.BAD_ADDRESS or len(block.spans) == 1:
            _mark(samples, block, quality)
            if quality is Quality.BAD_ADDRESS:
                self._refused.add(block)
            return ()
        halves = bisect(block)
        at = self._blocks.index(block)
        self._blocks[at : at + 1] = halves
        self._decoders.pop(block, None)
        return halves

    def _plan(self, points: Sequence[int]) -> list[Block]:
        spans = [Span(i, self._points[i].table, self._points[i].address, self._points[i].words) for i in points]
        config = self._config
        return plan(spans, gap=config.gap, max_registers=config.max_registers, max_bits=config.max_bits)

    def _decoder(self, block: Block) -> Decoder:
        found = self._decoders.get(block)
        if found is None:
            found = self._decoders[block] = decoder_of(block, self._points)
        return found


def _mark(samples: Samples, block: Block, quality: Quality) -> None:
    for point in block.points:
        samples.add(point, 0.0, quality)


def _truth(value: float) -> bool:
    if value not in (0.0, 1.0):
        raise Rejected("type", f"{value!r} is neither 0 nor 1")
    return value == 1.0


def _echoes(request: ModbusPDU, reply: ModbusPDU) -> bool:
    """A write is confirmed by its own address with its own value, or with the number of registers written."""
    if reply.address != request.address:
        return False
    if isinstance(request, WriteMultipleRegistersRequest):
        return bool(reply.count == request.count)
    if isinstance(request, WriteSingleCoilRequest):
        return bool(reply.bits[:1] == request.bits[:1])
    return list(reply.registers) == list(request.registers)
