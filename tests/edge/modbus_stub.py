"""A Modbus device on a socket that can be told to lie."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

Lie = Callable[[bytes], bytes | None]
"""From the honest reply (function code and data) to the one that is sent; None stays silent."""


def crc(data: bytes) -> bytes:
    """Modbus serial line protocol, 6.2.2."""
    value = 0xFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0xA001 if value & 1 else 0)
    return struct.pack("<H", value)


@dataclass
class Stub:
    """Registers and bits that answer; ``requests`` counts, ``writes`` remembers what was really written."""

    rtu: bool = False
    port: int = 0
    words: dict[int, int] = field(default_factory=dict)
    bits: dict[int, bool] = field(default_factory=dict)
    illegal: set[int] = field(default_factory=set)
    lie: Lie = lambda reply: reply
    wrap: Callable[[bytes], bytes] = lambda frame: frame
    requests: int = 0
    sessions: int = 0
    writes: list[tuple[int, int]] = field(default_factory=list)

    def answer(self, request: bytes) -> bytes:
        code = request[0]
        start, count = struct.unpack(">HH", request[1:5])
        length = 1 if code in (5, 6) else count
        if self.illegal & set(range(start, start + length)):
            return bytes([code | 0x80, 2])
        if code in (1, 2):
            octets = bytearray((count + 7) // 8)
            for i in range(count):
                octets[i // 8] |= self.bits.get(start + i, False) << i % 8
            return bytes([code, len(octets)]) + bytes(octets)
        if code in (3, 4):
            data = b"".join(struct.pack(">H", self.words.get(at, 0)) for at in range(start, start + count))
            return bytes([code, len(data)]) + data
        if code == 5:
            self.bits[start] = count == 0xFF00
            self.writes.append((start, int(self.bits[start])))
            return request
        values = [count] if code == 6 else list(struct.unpack(f">{count}H", request[6:]))
        for at, value in enumerate(values, start):
            self.words[at] = value
            self.writes.append((at, value))
        return request[:5]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.sessions += 1
        try:
            while True:
                reply = await (self._rtu(reader) if self.rtu else self._tcp(reader))
                if reply is not None:
                    writer.write(self.wrap(reply))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _tcp(self, reader: asyncio.StreamReader) -> bytes | None:
        tid, _, length, unit = struct.unpack(">HHHB", await reader.readexactly(7))
        request = await reader.readexactly(length - 1)
        self.requests += 1
        reply = self.lie(self.answer(request))
        return None if reply is None else struct.pack(">HHHB", tid, 0, len(reply) + 1, unit) + reply

    async def _rtu(self, reader: asyncio.StreamReader) -> bytes | None:
        head = await reader.readexactly(6)
        if head[1] in (15, 16):
            head += await reader.readexactly(1)
            head += await reader.readexactly(head[6])
        await reader.readexactly(2)
        self.requests += 1
        reply = self.lie(self.answer(head[1:]))
        return None if reply is None else (frame := head[:1] + reply) + crc(frame)


@asynccontextmanager
async def serving(stub: Stub) -> AsyncIterator[Stub]:
    """The stub on a loopback port, its own old one when it comes back."""
    server = await asyncio.start_server(stub.serve, "127.0.0.1", stub.port)
    stub.port = server.sockets[0].getsockname()[1]
    tasks = asyncio.all_tasks()
    try:
        yield stub
    finally:
        server.close()
        for task in asyncio.all_tasks() - tasks - {asyncio.current_task()}:
            if "Stub.serve" in repr(task.get_coro()):
                task.cancel()
                await asyncio.wait([task])
