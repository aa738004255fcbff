"""One device and its driver: keeps time, keeps trying, says once when the device is gone and once when it is back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from types import ModuleType

from edge.config import Device, Point
from edge.drivers.base import Driver, Samples
from edge.schedule import Schedule
from wire.errors import Unavailable
from wire.quality import Quality, is_bad
from wire.runtime.observe import Counters, Health
from wire.runtime.service import supervise

STALE_PERIODS = 10
"""A device that speaks by itself is stale after so many periods of silence, but not before `STALE_S`."""
STALE_S = 3.0


@dataclass(frozen=True, slots=True)
class Sink:
    """Where samples go: ``add`` waits while too many are on their way to the disk."""

    add: Callable[[int, Samples], Awaitable[None]]
    begin: Callable[[Sequence[int]], None]
    """These points' source starts anew and may repeat its newest values."""


class DeviceAgent:
    """Runs one driver. ``offset`` is the index of the device's first point in the edge's schema."""

    def __init__(
        self,
        device: Device,
        points: Sequence[Point],
        driver: ModuleType,
        offset: int,
        sink: Sink,
        counters: Counters,
        health: Health,
        *,
        source: str,
        slot: tuple[int, int],
        clock: Callable[[], float],
    ) -> None:
        self.device = device
        self._points = points
        self._module = driver
        self._offset = offset
        self._sink = sink
        self._counters = counters
        self._health = health
        self._path = f"{source}/{device.device}"
        self._slot = slot
        self._clock = clock
        self._log = logging.getLogger("twinline.edge.devices")
        self._polled = [index for index, point in enumerate(points) if point.read]
        self._driver: Driver | None = None
        self._busy = asyncio.Lock()
        self._silent = False
        self._heard = clock()

    async def run(self) -> None:
        """Read the device for as long as the edge lives."""
        name = self.device.device
        async with asyncio.TaskGroup() as tasks:
            if self._module.Driver.pushes:
                tasks.create_task(self._watch_silence(), name=f"silence/{name}")
            await supervise(name, self._session, counters=self._counters, log=self._log)

    @property
    def online(self) -> bool:
        """True while there is a session with the device."""
        return self._driver is not None

    async def write(self, point: int, value: float) -> None:
        """See `Driver.write`; waits at most for the poll under way."""
        driver = self._present()
        async with self._busy:
            await driver.write(point, value)

    async def fetch(self, point: int) -> float | None:
        """The point's value now, None if it is bad or no number."""
        driver = self._present()
        async with self._busy:
            samples = await driver.fetch(point)
        return None if not samples.point or is_bad(samples.quality[0]) or samples.side else samples.value[0]

    def _present(self) -> Driver:
        if self._driver is None:
            raise Unavailable(f"{self.device.device} is away")
        return self._driver

    async def _session(self) -> None:
        driver: Driver = self._module.Driver(self.device, self._points, self._path, self._polled)
        try:
            async with driver:
                self._driver, self._heard = driver, self._clock()
                self._sink.begin([self._offset + index for index in self._polled])
                await (self._listen(driver) if driver.pushes else self._poll(driver))
        except Unavailable as error:
            if (task := asyncio.current_task()) is not None and task.cancelling():
                # leaving a device that does not answer raised its own error in place of the cancellation
                raise asyncio.CancelledError from error
            await self._say_silent(Quality.BAD_CONNECTION, str(error))
            raise
        finally:
            self._driver = None

    async def _poll(self, driver: Driver) -> None:
        index, count = self._slot
        schedule = Schedule.staggered(self._clock(), self.device.period, index, count)
        while True:
            await asyncio.sleep(schedule.next(self._clock()) - self._clock())
            if schedule.missed:
                self._counters.drop("missed-poll", schedule.missed)
                schedule.missed = 0
            async with self._busy:
                samples = await driver.read()
            await self._take(samples)

    async def _listen(self, driver: Driver) -> None:
        while True:
            samples = await driver.read()
            self._heard = self._clock()
            if samples.point:
                await self._take(samples)

    async def _take(self, samples: Samples) -> None:
        self._counters.received += len(samples.point)
        if self._silent:
            self._silent = False
            self._health.back(self.device.device)
        await self._sink.add(self._offset, samples)

    async def _watch_silence(self) -> None:
        patience = max(STALE_S, STALE_PERIODS * self.device.period)
        while True:
            await asyncio.sleep(max(0.05, self._heard + patience - self._clock()))
            if self._clock() - self._heard >= patience:
                await self._say_silent(Quality.BAD_STALE, f"nothing heard for {patience:g} s")

    async def _say_silent(self, quality: Quality, why: str) -> None:
        """One bad row per point, then nothing until the device is back."""
        if self._silent:
            return
        self._silent = True
        self._health.lost(self.device.device, why)
        samples = Samples()
        for index in self._polled:
            samples.add(index, 0.0, quality)
        await self._sink.add(self._offset, samples)
