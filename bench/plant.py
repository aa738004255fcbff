"""A plant that costs next to nothing: D Modbus TCP devices on consecutive loopback ports, 10 input registers each.

Register 0 counts the requests that the device has answered (modulo 65,536), so a stored value names its reading;
registers 1 to 9 follow it. ``python -m bench.plant BASE_PORT DEVICES`` serves until SIGTERM and then prints the number
of requests as JSON.
"""

from __future__ import annotations

import asyncio
import json
import signal
import struct
import sys

REGISTERS = 10


class Device(asyncio.Protocol):
    """One Modbus TCP server: function codes 3 and 4 over the ten registers, exception 2 outside, 1 for the rest."""

    def __init__(self, counts: list[int], index: int) -> None:
        self._counts, self._index, self._buffer = counts, index, b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while len(self._buffer) >= 12:
            size = 6 + struct.unpack_from(">H", self._buffer, 4)[0]
            if len(self._buffer) < size:
                return
            request, self._buffer = self._buffer[:size], self._buffer[size:]
            body = self._answer(*struct.unpack_from(">BHH", request, 7))
            assert self._transport is not None
            self._transport.write(request[:4] + struct.pack(">HB", len(body) + 1, request[6]) + body)

    def _answer(self, function: int, address: int, count: int) -> bytes:
        if function not in (3, 4):
            return bytes([function | 0x80, 1])
        if address + count > REGISTERS or not count:
            return bytes([function | 0x80, 2])
        self._counts[self._index] += 1
        first = self._counts[self._index]
        registers = [(first + 7 * i) & 0xFFFF if i else first & 0xFFFF for i in range(REGISTERS)]
        return struct.pack(f">BB{count}H", function, 2 * count, *registers[address : address + count])


async def serve(base: int, devices: int) -> None:
    """Serve until SIGTERM; prints ``ready`` when every port listens."""
    loop, stop, counts = asyncio.get_running_loop(), asyncio.Event(), [0] * devices
    servers = [
        await loop.create_server(lambda index=index: Device(counts, index), "127.0.0.1", base + index)
        for index in range(devices)
    ]
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    print("ready", flush=True)
    await stop.wait()
    for server in servers:
        server.close()
    print(json.dumps({"requests": sum(counts), "values": REGISTERS * sum(counts)}), flush=True)


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), int(sys.argv[2])))
