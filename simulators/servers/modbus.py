"""A device on Modbus TCP (or RTU frames over TCP): its register map is its profile.

Reads are answered from the newest samples. A read that touches a register nobody declared gets exception 2; one that
touches a point without a value gets exception 4; a write that the plant refuses gets exception 3. A slow device delays
its answers; a dead one gives none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Literal

from pydantic import Field
from pymodbus.constants import ExcCodes
from pymodbus.exceptions import NoSuchIdException
from pymodbus.framer import FramerType
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from simulators.faults import Condition
from simulators.profile import Served
from simulators.servers.base import Obey, Sample
from simulators.servers.modbus_registers import Order, Type, from_words, to_words, width
from wire.errors import Rejected, Unavailable
from wire.settings import Settings

Table = Literal["coil", "discrete", "holding", "input"]
TABLES: tuple[Table, ...] = ("coil", "discrete", "holding", "input")
BITS: tuple[Table, ...] = ("coil", "discrete")
TABLE_OF: Mapping[int, Table] = MappingProxyType(
    {1: "coil", 5: "coil", 15: "coil", 2: "discrete", 3: "holding", 6: "holding", 16: "holding", 4: "input"}
)
"""Function code to table; other functions are refused with exception 1."""


class Config(Settings):
    """Where the device listens."""

    kind: Literal["modbus"]
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65_535)]
    unit: Annotated[int, Field(ge=1, le=255)] = 1
    framing: Literal["tcp", "rtu"] = "tcp"


class Address(Served):
    """A point's place in the register map; addresses count from zero."""

    table: Table
    address: Annotated[int, Field(ge=0, le=65_535)]
    type: Type = "uint16"
    order: Order = "abcd"

    @property
    def kind(self) -> Type:
        """The type that is really stored: coils and discrete inputs hold single bits."""
        return "bool" if self.table in BITS else self.type

    @property
    def places(self) -> range:
        """The registers or bits that the point takes."""
        return range(self.address, self.address + width(self.kind))


class Server:
    """One Modbus unit."""

    def __init__(self, config: Config, points: Sequence[Address], obey: Obey) -> None:
        self._config = config
        self._obey = obey
        self._points = {point.point: point for point in points}
        self._owner = {(point.table, place): point for point in points for place in point.places}
        self._image = dict.fromkeys(self._owner, 0)
        self._missing: set[str] = set()
        self._condition = Condition()

    async def serve(self) -> None:
        framer = FramerType.RTU if self._config.framing == "rtu" else FramerType.SOCKET
        device = SimDevice(id=self._config.unit, simdata=self._memory(), action=self._answer)
        address = (self._config.host, self._config.port)
        server = ModbusTcpServer(device, framer=framer, address=address, ignore_missing_devices=True)
        try:
            await server.serve_forever(background=True)
        except RuntimeError as error:
            raise Unavailable(f"cannot listen on {address[0]}:{address[1]}: {error}") from None
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            await server.shutdown()  # type: ignore[no-untyped-call]

    def show(self, samples: Sequence[Sample]) -> None:
        for sample in samples:
            point = self._points.get(sample.point)
            if point is None:
                continue
            if sample.value is None:
                self._missing.add(sample.point)
                continue
            self._missing.discard(sample.point)
            words = to_words(point.raw(sample.value), point.kind, point.order)
            self._image.update({(point.table, place): word for place, word in zip(point.places, words, strict=True)})

    def impair(self, condition: Condition) -> None:
        self._condition = condition

    def _memory(self) -> tuple[list[SimData], list[SimData], list[SimData], list[SimData]]:
        """Blank memory from 0 to the last place of each table; ``_answer`` fills in what is asked for."""
        blocks = []
        for table in TABLES:
            last = max((place for name, place in self._owner if name == table), default=0)
            if table in BITS:
                blocks.append([SimData(0, values=[False] * ((last // 16 + 1) * 16), datatype=DataType.BITS)])
            else:
                blocks.append([SimData(0, count=last + 1, values=0, datatype=DataType.REGISTERS)])
        return blocks[0], blocks[1], blocks[2], blocks[3]

    async def _answer(
        self,
        function: int,
        start: int,
        address: int,
        count: int,
        registers: list[int],
        values: list[int] | list[bool] | None,
    ) -> ExcCodes | None:
        """Called by pymodbus before it reads or changes ``registers``, which are the whole table from ``start`` on."""
        if self._condition.dead:
            raise NoSuchIdException
        if self._condition.delay_s:
            await asyncio.sleep(self._condition.delay_s)
        table = TABLE_OF.get(function)
        if table is None:
            return ExcCodes.ILLEGAL_FUNCTION
        if values is not None:
            return self._write(table, address, values)
        asked = range(address, address + (1 if table in BITS else count))
        if any((table, place) not in self._owner for place in asked):
            return ExcCodes.ILLEGAL_ADDRESS
        if any(self._owner[table, place].point in self._missing for place in asked):
            return ExcCodes.DEVICE_FAILURE
        self._copy(table, start, registers)
        return None

    def _copy(self, table: Table, start: int, registers: list[int]) -> None:
        """The image of one table into pymodbus's memory; bits are packed 16 to a register, the lowest first."""
        if table in BITS:
            registers[:] = [0] * len(registers)
        for (name, place), word in self._image.items():
            if name != table:
                continue
            if table in BITS:
                registers[place // 16 - start] |= word << place % 16
            else:
                registers[place - start] = word

    def _write(self, table: Table, address: int, values: Sequence[int]) -> ExcCodes | None:
        """Obey a write to whole points or to parts of them; what comes after a refused one is not done."""
        written = {(table, address + index): int(value) for index, value in enumerate(values)}
        if any(key not in self._owner for key in written):
            return ExcCodes.ILLEGAL_ADDRESS
        after = self._image | written
        touched = dict.fromkeys(self._owner[key].point for key in written)
        try:
            for name in touched:
                point = self._points[name]
                words = [after[point.table, place] for place in point.places]
                self._obey(name, point.engineering(from_words(words, point.kind, point.order)))
        except Rejected as refusal:
            return ExcCodes.ILLEGAL_ADDRESS if refusal.reason == "unlisted" else ExcCodes.ILLEGAL_VALUE
        self._image = after
        return None
