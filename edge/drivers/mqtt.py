"""Devices that speak JSON over MQTT by themselves, on a broker of their own or the site's.

A message may carry several points and the device's own stamp; each keeps its own time, whatever the order of arrival.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from edge.drivers import mqtt_json
from edge.drivers.base import Samples
from edge.drivers.scaled_address import Scaled
from edge.drivers.typed_value import ValueType, add_value
from wire.errors import BadData, Rejected, Unavailable
from wire.quality import Quality
from wire.runtime.link import Delivery
from wire.runtime.mqtt import MqttConfig, MqttLink
from wire.settings import Duration, Settings

CAPACITY = 10_000
"""Readings held between two reads; when full, the newest are dropped and counted."""

Topic = Annotated[str, Field(min_length=1, max_length=512, pattern=r"^[^+#\x00]+$")]
Path = Annotated[str, Field(pattern=mqtt_json.PATH_PATTERN)]


class Config(Settings):
    """One device on one broker."""

    broker: MqttConfig
    id: str = ""
    """Stands for ``{id}`` in the profile's topics."""
    timeout: Duration = 2.0
    """For the connection, for a write, and for a fresh message after one."""


class Address(Scaled):
    """Which topic and which part of its payload a point is, and where to write it."""

    topic: Topic | None = None
    """Topic of the readings; may hold ``{id}``."""
    path: Path | None = None
    """Place of the value in the payload; without one the whole payload is the value."""
    time: Path | None = None
    """Place of the device's stamp; without one the edge stamps on arrival."""
    time_unit: mqtt_json.TimeUnit = "ns"
    type: ValueType = "float"
    write_topic: Topic | None = None
    write_path: Path | None = "value"
    """Place of the value in the JSON object that is written; null writes the bare value."""

    @model_validator(mode="after")
    def _reachable(self) -> Self:
        if self.topic is None and self.write_topic is None:
            raise ValueError("needs a topic to read, a write_topic, or both")
        return self

    @property
    def value_type(self) -> ValueType:
        """What a reading of this point is."""
        return self.type if self.type != "int" or self.plain else "float"

    @property
    def writable(self) -> bool:
        return self.write_topic is not None and self.type != "text"


class Driver:
    """One device, heard and commanded through a broker. The link reconnects by itself; silence is judged outside."""

    pushes: ClassVar[bool] = True

    def __init__(
        self, config: Config, points: Sequence[Address], name: str = "mqtt", polled: Sequence[int] | None = None
    ) -> None:
        self.dropped = 0
        self._config = config
        self._points = points
        self._name = name
        self._link = MqttLink(config.broker, f"edge-reads-{name.replace('/', '-')}")
        self._by_topic: dict[str, list[int]] = defaultdict(list)
        for point in range(len(points)) if polled is None else polled:
            topic = points[point].topic
            if topic is not None:
                self._by_topic[self._filled(topic)].append(point)
        self._arrived = Samples()
        self._news = asyncio.Event()
        self._newest: dict[int, tuple[Samples, int]] = {}
        self._heard = asyncio.Condition()
        self._exit = AsyncExitStack()

    async def __aenter__(self) -> Self:
        up = True
        async with AsyncExitStack() as stack:
            tasks = await stack.enter_async_context(asyncio.TaskGroup())
            for topic, points in self._by_topic.items():
                heard = self._link.subscribe(topic)
                pump = tasks.create_task(self._pump(heard, points), name=f"mqtt/{self._name}/{topic}")
                stack.callback(pump.cancel)
            link = tasks.create_task(self._link.run(), name=f"mqtt/{self._name}")
            stack.callback(link.cancel)
            try:
                async with asyncio.timeout(self._config.timeout):
                    await self._link.connected()
            except TimeoutError:
                up = False
            if up:
                self._exit = stack.pop_all()
        if not up:
            # raised outside the task group, which would wrap it
            raise Unavailable(f"{self._name}: no connection to {self._config.broker.host}:{self._config.broker.port}")
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._exit.aclose()

    async def read(self) -> Samples:
        """What has arrived since the last call."""
        await self._news.wait()
        arrived, self._arrived = self._arrived, Samples()
        self._news.clear()
        return arrived

    async def fetch(self, point: int) -> Samples:
        """The newest reading that came after the last write, or the next one."""
        try:
            async with asyncio.timeout(self._config.timeout), self._heard:
                await self._heard.wait_for(lambda: point in self._newest)
        except TimeoutError:
            raise Unavailable(f"{self._name}: nothing heard of the point") from None
        return _row(*self._newest[point])

    async def write(self, point: int, value: float) -> None:
        address = self._points[point]
        if address.write_topic is None or not address.writable:
            raise Rejected("read-only", "the profile names no write_topic")
        if address.type == "bool" and value not in (0.0, 1.0):
            raise Rejected("type", f"{value!r} is neither 0 nor 1")
        payload = mqtt_json.compose(address.raw(value), address.type, address.write_path)
        self._newest.clear()
        try:
            async with asyncio.timeout(self._config.timeout):
                await self._link.publish(self._filled(address.write_topic), payload, qos=1)
        except TimeoutError:
            raise Unavailable(f"{self._name}: the broker did not confirm") from None

    async def _pump(self, heard: AsyncIterator[Delivery], points: Sequence[int]) -> None:
        async for delivery in heard:
            samples = self._decode(delivery, points)
            if len(self._arrived.point) + len(samples.point) > CAPACITY:
                self.dropped += len(samples.point)
                continue
            at = len(self._arrived.point)
            self._arrived.side.update({at + row: value for row, value in samples.side.items()})
            self._arrived.point += samples.point
            self._arrived.time += samples.time
            self._arrived.value += samples.value
            self._arrived.quality += samples.quality
            self._news.set()
            async with self._heard:
                for row, point in enumerate(samples.point):
                    self._newest[point] = (samples, row)
                self._heard.notify_all()

    def _decode(self, delivery: Delivery, points: Sequence[int]) -> Samples:
        """The points that this message carries; if it carries none of them, all are bad.

        A value is uncertain/clock if its stamp is missing, or if a broker kept it for nobody knows how long.
        """
        samples = Samples()
        try:
            content: object = mqtt_json.parse(delivery.payload)
        except BadData:
            content = mqtt_json.MISSING
        for point in points:
            address = self._points[point]
            value = mqtt_json.pick(content, address.path)
            if value is mqtt_json.MISSING:
                continue
            time = mqtt_json.stamp(mqtt_json.pick(content, address.time), address.time_unit) if address.time else 0
            untimed = time == 0 and (address.time is not None or delivery.retain)
            add_value(samples, point, address, value, Quality.UNCERTAIN_CLOCK if untimed else Quality.GOOD, time)
        if not samples.point:
            for point in points:
                samples.add(point, 0.0, Quality.BAD_REPLY)
        return samples

    def _filled(self, topic: str) -> str:
        return topic.replace("{id}", self._config.id)


def _row(samples: Samples, row: int) -> Samples:
    side = {0: samples.side[row]} if row in samples.side else {}
    return Samples([samples.point[row]], [samples.time[row]], [samples.value[row]], [samples.quality[row]], side)
