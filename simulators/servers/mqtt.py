"""A device that speaks JSON over MQTT by itself: points that share a topic and a stamp share a message.

Some messages may be held back on purpose, so that they arrive late and out of order with their true stamps. A slow
device sends everything late; a dead one sends nothing and takes nothing.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from simulators.faults import Condition
from simulators.noise import stream
from simulators.profile import Served
from simulators.servers.base import Obey, Outgoing, Sample
from wire.errors import Rejected, Unavailable
from wire.runtime.link import Delivery
from wire.runtime.mqtt import MqttConfig, MqttLink
from wire.settings import Duration, Settings

log = logging.getLogger("twinline.simulators.mqtt")

PER_NS = {"ns": 1, "us": 1_000, "ms": 1_000_000}
KEY = r"^[^.\[\]\s]+(\.[^.\[\]\s]+)*$"
"""Keys joined by dots; what this device sends holds no lists."""


class Late(Settings):
    """Messages held back at random: each with probability ``share``, for up to ``by``."""

    share: Annotated[float, Field(ge=0, le=1)]
    by: Duration


class Config(Settings):
    """The broker that the device speaks to, and how well its network is."""

    kind: Literal["mqtt"]
    broker: MqttConfig
    client: Annotated[str, Field(min_length=1)]
    late: Late | None = None
    seed: int = 1


class Address(Served):
    """A point's topic and place in the payload, and where commands for it are taken."""

    topic: str | None = None
    path: Annotated[str, Field(pattern=KEY)] | None = None
    time: Annotated[str, Field(pattern=KEY)] | None = None
    time_unit: Literal["ns", "us", "ms"] = "ns"
    type: Literal["float", "int", "bool"] = "float"
    write_topic: str | None = None
    write_path: Annotated[str, Field(pattern=KEY)] | None = "value"

    def wire_value(self, engineering: float) -> float | int | bool:
        """A value as JSON shows it."""
        raw = self.raw(engineering)
        return raw if self.type == "float" else bool(raw) if self.type == "bool" else round(raw)


class Message(NamedTuple):
    """One MQTT message to be."""

    topic: str
    payload: bytes


class Server:
    """One device, a client of a broker."""

    def __init__(self, config: Config, points: Sequence[Address], obey: Obey) -> None:
        self._config = config
        self._points = {point.point: point for point in points}
        self._obey = obey
        self._rng = stream(config.seed, config.client, "late")
        self._outgoing: Outgoing[Message] = Outgoing()
        self._condition = Condition()

    async def serve(self) -> None:
        link = MqttLink(self._config.broker, self._config.client)
        commands = [
            (point, link.subscribe(point.write_topic, qos=1)) for point in self._points.values() if point.write_topic
        ]
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(link.run(), name="mqtt/link")
            for point, subscription in commands:
                tasks.create_task(self._listen(point, subscription), name=f"mqtt/commands/{point.point}")
            while True:
                message = await self._outgoing.get()
                # the device has no memory: what it cannot send now is gone
                with suppress(Unavailable):
                    await link.publish(message.topic, message.payload)

    def show(self, samples: Sequence[Sample]) -> None:
        if self._condition.dead:
            return
        for message in messages(samples, self._points):
            self._outgoing.put(message, self._condition.delay_s + self._lateness())

    def impair(self, condition: Condition) -> None:
        self._condition = condition

    def _lateness(self) -> float:
        late = self._config.late
        if late is None or self._rng.random() >= late.share:
            return 0.0
        return late.by * float(self._rng.random())

    async def _listen(self, point: Address, subscription: AsyncIterator[Delivery]) -> None:
        async for delivery in subscription:
            if self._condition.dead:
                continue
            value = command(delivery.payload, point.write_path)
            if value is None:
                log.warning("%s: command that is no number was ignored", point.point)
                continue
            try:
                self._obey(point.point, point.engineering(value))
            except Rejected as refusal:
                log.warning("%s: command refused: %s", point.point, refusal)


def messages(samples: Sequence[Sample], points: Mapping[str, Address]) -> list[Message]:
    """Samples as messages: one for each topic and stamp, a bare value where a point has no path."""
    bodies: dict[tuple[str, int], dict[str, object]] = {}
    bare: list[Message] = []
    for sample in samples:
        point = points.get(sample.point)
        if point is None or point.topic is None or sample.value is None:
            continue
        value = point.wire_value(sample.value)
        if point.path is None:
            bare.append(Message(point.topic, json.dumps(value).encode()))
            continue
        body = bodies.setdefault((point.topic, sample.time), {})
        _place(body, point.path, value)
        if point.time is not None:
            _place(body, point.time, sample.time // PER_NS[point.time_unit])
    return bare + [Message(topic, json.dumps(body).encode()) for (topic, _), body in bodies.items()]


def command(payload: bytes, path: str | None) -> float | None:
    """The number in a command, None if there is none."""
    try:
        found = json.loads(payload)
    except ValueError:
        return None
    for key in path.split(".") if path else ():
        found = found.get(key) if isinstance(found, dict) else None
    return float(found) if isinstance(found, int | float) and not isinstance(found, bool) else None


def _place(body: dict[str, object], path: str, value: object) -> None:
    """Put a value under dotted keys."""
    *folders, leaf = path.split(".")
    for folder in folders:
        inner = body.setdefault(folder, {})
        if not isinstance(inner, dict):
            return
        body = inner
    body[leaf] = value
