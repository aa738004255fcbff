"""The gateway, assembled: edges' streams come in from the south, are committed here, and go on to the north.

::

    south  --Intake-->  Ingest (units to SI)  -->  Outbox  --Uplink-->  north
    south  <------------- setpoints, on links of their own -----------  north
    south  --Alive------------------------------------------------>     north (retained)
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path

from gateway.config import GatewayConfig
from gateway.deadletter import DeadLetters
from gateway.downlink import pass_down
from gateway.ingest import Ingest
from gateway.latest import BEHIND_S, Newest, glance, pass_up
from gateway.presence import Presence, farewell
from wire import topics
from wire.codec import decode
from wire.delivery import Receiver
from wire.messages import Alive, Record
from wire.runtime import files
from wire.runtime.intake import Intake
from wire.runtime.link import Link
from wire.runtime.mqtt import MqttLink
from wire.runtime.observe import Counters
from wire.runtime.outbox import Outbox
from wire.runtime.uplink import Uplink
from wire.topics import EdgeRoute, GatewayRoute

log = logging.getLogger("twinline.gateway")


@dataclass(frozen=True)
class Links:
    """Telemetry and setpoints travel on connections of their own, on both sides."""

    south: Link
    north: Link
    setpoints_south: Link
    setpoints_north: Link

    async def run(self) -> None:
        """Keep all four up until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.south.run(), name="link/south")
            tasks.create_task(self.north.run(), name="link/north")
            tasks.create_task(self.setpoints_south.run(), name="link/setpoints-south")
            tasks.create_task(self.setpoints_north.run(), name="link/setpoints-north")


@dataclass(frozen=True)
class Tallies:
    """Five figures for each of the gateway's three jobs."""

    intake: Counters = field(default_factory=Counters)
    uplink: Counters = field(default_factory=Counters)
    setpoints: Counters = field(default_factory=Counters)


def mqtt_links(config: GatewayConfig, last_will: bytes) -> Links:
    """The real links; the cloud hears the last will on the northern one."""
    name = f"gateway-{config.site}-{config.gateway}"
    alive = GatewayRoute(config.site, config.gateway).alive
    return Links(
        south=MqttLink(config.south, f"{name}-south"),
        north=MqttLink(config.north, f"{name}-north", will=(alive, last_will)),
        setpoints_south=MqttLink(config.south, f"{name}-south-setpoints"),
        setpoints_north=MqttLink(config.north, f"{name}-north-setpoints"),
    )


class Relay:
    """One site gateway. ``connect`` makes the links, given the payload of the last will."""

    def __init__(
        self,
        config: GatewayConfig,
        connect: Callable[[GatewayConfig, bytes], Links] = mqtt_links,
        *,
        now: Callable[[], int] = time.time_ns,
        nonce: Callable[[], str] = secrets.token_hex,
    ) -> None:
        self.tallies = Tallies()
        self.dead_letters = DeadLetters(Path(config.state) / "refused.jsonl", now=now)
        self.outbox = Outbox(
            Path(config.state) / "outbox.db",
            source=None,
            quota_bytes=config.quota,
            grace_s=config.grace,
            now=now,
        )
        self._config = config
        self._now = now
        self._boot = now()
        self._nonce = nonce()
        self._route = GatewayRoute(config.site, config.gateway)
        self._links = connect(config, farewell(self._announcement(0)))

    async def run(self) -> None:
        """Relay until cancelled."""
        await asyncio.to_thread(files.make_folder, Path(self._config.state))
        links, route, refused = self._links, self._route, self.dead_letters.put
        presence = Presence(links.south, links.north, route, self._alive, refused)
        async with self.outbox, asyncio.TaskGroup() as tasks:
            uplink = Uplink(
                self.outbox, links.north, up_topic=route.up, ack_topic=route.ack, counters=self.tallies.uplink
            )
            newest = Newest(lambda: uplink.lag_s > BEHIND_S)
            ingest = Ingest(self._config, self.outbox, self.dead_letters, newest, await self._schemas(), now=self._now)
            parts = {
                "links": links.run(),
                "dead-letters": self.dead_letters.run(),
                "intake": self._intake(ingest).run(),
                "uplink": uplink.run(),
                "presence": presence.run(),
                "setpoints": pass_down(links.setpoints_north, links.setpoints_south, route, self.tallies.setpoints),
                "latest": pass_up(links.south, links.north, route, ingest.glance, refused),
                "glance": glance(links.north, route, newest),
            }
            for name, part in parts.items():
                tasks.create_task(part, name=name)
            log.info("gateway %s/%s is up", *route)
            try:
                await asyncio.Event().wait()
            finally:
                await presence.say_goodbye()

    async def _schemas(self) -> list[Record]:
        """The newest schema of every stream, as forwarded in an earlier life."""
        stored = [await self.outbox.schema(key) for key in self.outbox.positions() if key.stream == "telemetry"]
        return [decode(Record, raw) for raw in stored if raw is not None]

    def _intake(self, ingest: Ingest) -> Intake:
        site, gateway = self._route
        positions = self.outbox.positions()
        return Intake(
            self._links.south,
            topics.edges_up(site, gateway),
            Receiver(positions, schemas=ingest.known()),
            ingest.commit,
            lambda topic: EdgeRoute(site, gateway, topics.edge_of(topic)).ack,
            # a life of its own: edges believe at once a gateway that has lost its memory
            term=lambda: self._boot,
            routes={key: EdgeRoute(site, gateway, key.source.partition("/")[2]).up(key.stream) for key in positions},
            refused=self.dead_letters.put,
            counters=self.tallies.intake,
        )

    def _alive(self) -> Alive:
        return self._announcement(self.outbox.totals.pending_records)

    def _announcement(self, backlog: int) -> Alive:
        return Alive(
            site=self._config.site,
            name=self._config.gateway,
            role="gateway",
            online=True,
            at=self._now(),
            nonce=self._nonce,
            backlog=backlog,
            config_hash=blake2b(self._config.model_dump_json().encode(), digest_size=8).hexdigest(),
        )
