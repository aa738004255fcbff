"""The edge agent, assembled by hand: drivers to batch to outbox to uplink; setpoints to guard to lanes to drivers."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Protocol

from edge import presence
from edge.actuate import Actuator, Reporter
from edge.assembly import Assembly
from edge.batch import Batch
from edge.collect import Collector
from edge.device import DeviceAgent, Sink
from edge.guard import Desk, Key
from edge.lane import Lane, Outcome
from edge.presence import Presence
from edge.revisions import Revisions
from edge.stamps import Stamps
from wire.codec import encode
from wire.runtime import files
from wire.runtime.link import Link
from wire.runtime.mqtt import MqttConfig, MqttLink
from wire.runtime.observe import Counters, Health
from wire.runtime.outbox import Outbox
from wire.runtime.uplink import Uplink
from wire.topics import EdgeRoute

FAREWELL_S = 1.5
"""For the last commit and the last word."""


class Connect(Protocol):
    """Makes the link to the gateway's broker."""

    def __call__(self, config: MqttConfig, client_id: str, will: tuple[str, bytes] | None = None) -> Link: ...


class Agent:
    """One edge. Scopes end in the order in which they are left: devices, presence, outbox, links."""

    def __init__(
        self,
        assembly: Assembly,
        *,
        now: Callable[[], int] = time.time_ns,
        clock: Callable[[], float] = time.monotonic,
        connect: Connect = MqttLink,
    ) -> None:
        config = assembly.config
        self.counters = Counters()
        self.commands = Counters()
        self.health = Health(logging.getLogger("twinline.edge"))
        self._assembly = assembly
        self._now = now
        self._clock = clock
        self._connect = connect
        self._route = EdgeRoute(config.site, config.gateway, config.edge)
        self._state = Path(config.state)

    async def run(self) -> None:
        """Read, keep, send and obey, until cancelled."""
        assembly, config = self._assembly, self._assembly.config
        nonce = secrets.token_hex(16)
        will = (self._route.alive, encode(presence.alive(assembly, nonce, self._now(), online=False)))
        link = self._connect(config.link, f"edge-{config.site}-{config.edge}", will)
        await asyncio.to_thread(files.make_folder, self._state)
        revisions = Revisions(self._state / "revisions.json")
        await revisions.load()
        outbox = Outbox(
            self._state / "outbox.db",
            source=assembly.source,
            quota_bytes=config.quota,
            linger_s=config.linger,
            now=self._now,
        )
        schema = assembly.schema
        stamps = Stamps(self._state / "stamps.bin", schema.schema_hash, len(schema.points))
        async with asyncio.TaskGroup() as links:
            up = links.create_task(link.run(), name="link")
            async with outbox:
                with stamps:
                    await outbox.declare(schema)
                    await self._serve(link, outbox, stamps, revisions, nonce)
            up.cancel()

    async def _serve(self, link: Link, outbox: Outbox, stamps: Stamps, revisions: Revisions, nonce: str) -> None:
        assembly, config = self._assembly, self._assembly.config
        ranges = [point.range for point in assembly.all_points]
        batch = Batch(assembly.schema.schema_hash, ranges, round(config.max_skew * 1e9))
        collector = Collector(batch, outbox, stamps, self.counters, self.health, now=self._now)
        uplink = Uplink(outbox, link, up_topic=self._route.up, ack_topic=self._route.ack, clock=self._clock)
        present = Presence(
            assembly,
            nonce,
            link,
            now=self._now,
            backlog=lambda: outbox.totals.pending_records,
            revisions=lambda: revisions.held.values(),
        )
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(uplink.run(), name="uplink")
                tasks.create_task(collector.run(), name="collector")
                tasks.create_task(present.run(), name="presence")
                glance = presence.glance(
                    link, self._route.latest, assembly.source, lambda: uplink.lag_s, collector.newest
                )
                tasks.create_task(glance, name="latest")
                devices = self._devices(collector)
                for device in devices:
                    tasks.create_task(device.run(), name=f"device/{device.device.device}")
                tasks.create_task(self._obey(devices, outbox, revisions, nonce, present), name="setpoints")
        finally:
            # what a broken disk or a broker that hangs would hold up is lost with the process anyway
            with suppress(TimeoutError):
                async with asyncio.timeout(FAREWELL_S):
                    await collector.flush(last=True)
                    await present.say(online=False)

    def _devices(self, collector: Collector) -> list[DeviceAgent]:
        assembly = self._assembly
        sink = Sink(collector.add, collector.begin)
        count = len(assembly.config.devices)
        return [
            DeviceAgent(
                device,
                points,
                driver,
                offset,
                sink,
                self.counters,
                self.health,
                source=assembly.source,
                slot=(index, count),
                clock=self._clock,
            )
            for index, (device, points, driver, offset) in enumerate(
                zip(assembly.config.devices, assembly.points, assembly.drivers, assembly.offsets, strict=True)
            )
        ]

    async def _obey(
        self, devices: list[DeviceAgent], outbox: Outbox, revisions: Revisions, nonce: str, present: Presence
    ) -> None:
        """The command side, on a connection of its own so that telemetry cannot stand in its way."""
        assembly, config = self._assembly, self._assembly.config
        link = self._connect(config.link, f"edge-{config.site}-{config.edge}-setpoints")
        inbox = link.subscribe(self._route.setpoint, qos=1, capacity=256)
        reporter = Reporter(partial(outbox.append, "results"), revisions, self._now)
        limits = assembly.limits
        desk = Desk(config.site, config.edge, nonce, assembly.trust, limits, round(config.setpoint_skew * 1e9))
        lanes = self._lanes(devices, reporter, present)
        actuator = Actuator(
            desk,
            lanes,
            revisions,
            reporter,
            self.commands,
            now=self._now,
            clock=self._clock,
            clock_trusted=presence.clock_trusted,
        )
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(link.run(), name="link/setpoints")
            tasks.create_task(reporter.run(), name="results")
            for key, lane in lanes.items():
                tasks.create_task(lane.run(), name=f"lane/{'/'.join(key)}")
            tasks.create_task(actuator.run(inbox), name="actuator")

    def _lanes(self, devices: list[DeviceAgent], reporter: Reporter, present: Presence) -> dict[Key, Lane]:
        lanes: dict[Key, Lane] = {}
        for device, points in zip(devices, self._assembly.points, strict=True):
            index = {point.point: at for at, point in enumerate(points)}
            for point in points:
                if point.write is None:
                    continue
                key = (device.device.device, point.point)
                readback = index[point.write.readback or point.point]

                async def report(outcome: Outcome, key: Key = key, unit: str = point.unit) -> None:
                    await reporter.report(key, unit, outcome)
                    present.changed()

                lanes[key] = Lane(device, index[point.point], readback, point.write, report, self._clock)
        return lanes
