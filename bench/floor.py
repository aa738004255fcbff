"""The floor that an edge agent's CPU is compared with: poll, pack, publish, forget.

Bare asyncio sockets, struct, orjson and paho: each device is read once a period and its ten values leave as one JSON
message at QoS 1. Nothing is checked, stored, retried or counted, so nothing that keeps a promise can cost less.
``python -m bench.floor MQTT_PORT BASE_PORT DEVICES PERIOD_S`` runs until SIGTERM.
"""

from __future__ import annotations

import asyncio
import struct
import sys
import time

import orjson
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion

REQUEST = struct.pack(">HHHBBHH", 1, 0, 6, 1, 4, 0, 10)


async def poll(client: paho.Client, device: int, port: int, period: float, start: float) -> None:
    """One device for ever, on its own staggered grid."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    cycle = 0
    while True:
        due = start + cycle * period
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        writer.write(REQUEST)
        reply = await reader.readexactly(9 + 20)
        values = struct.unpack_from(">10H", reply, 9)
        stamp = time.time_ns() // 1_000_000
        client.publish(f"floor/{device}", orjson.dumps({"device": device, "ts": stamp, "values": values}), qos=1)
        cycle += 1


async def main(mqtt_port: int, base: int, devices: int, period: float) -> None:
    """Every device at once, starts spread over one period."""
    client = paho.Client(CallbackAPIVersion.VERSION2, client_id="floor")
    client.max_inflight_messages_set(1000)
    client.connect("127.0.0.1", mqtt_port)
    client.loop_start()
    start = time.monotonic() + 0.5
    async with asyncio.TaskGroup() as tasks:
        for device in range(devices):
            offset = start + device * period / devices
            tasks.create_task(poll(client, device, base + device, period, offset), name=f"poll/{device}")


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])))
