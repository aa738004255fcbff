"""Routes about the whole: figures and health."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from cloud.api import render
from cloud.api.body import reply
from cloud.api.ports import LiveView, Presence
from cloud.api.schema import HealthReply, LatencyReply, PresenceReply, StatsReply
from cloud.commands.service import Commands
from cloud.provision.registry import Registry

NS = 1_000_000_000


class StatsRoutes:
    """Handlers over everything that counts."""

    def __init__(self, registry: Registry, live: LiveView, commands: Commands, now: Callable[[], int]) -> None:
        self._registry = registry
        self._live = live
        self._commands = commands
        self._now = now

    @property
    def routes(self) -> list[Route]:
        return [
            Route("/v1/stats", self.stats, methods=["GET"]),
            Route("/v1/health", self.health, methods=["GET"]),
        ]

    async def stats(self, request: Request) -> Response:
        now, figures = self._now(), self._live.figures()
        beliefs = self._live.beliefs(list(self._registry.twins()), now)
        newest = await self._commands.newest()
        body = StatsReply(
            readings_applied=figures.applied,
            duplicates=figures.duplicates,
            outcomes=dict(figures.outcomes),
            latency_ms=LatencyReply(p50=figures.latency_p50_ms, p99=figures.latency_p99_ms),
            setpoints=dict(await self._commands.counts()),
            last_setpoint=None if newest is None else render.command_reply(newest),
            twins={name: render.health_of(belief) for name, belief in beliefs.items()},
            presence=[_presence(item, now) for item in self._live.presence()],
        )
        return reply(body)

    async def health(self, request: Request) -> Response:
        away = _away(self._live.presence())
        body = HealthReply(status="degraded" if away else "ok", twins=len(self._registry.twins()), away=away)
        return reply(body)


def _presence(item: Presence, now: int) -> PresenceReply:
    alive = item.alive
    return PresenceReply(
        source=f"{alive.site}/{alive.name}",
        role=alive.role,
        online=alive.online,
        age_s=max(now - item.received, 0) / NS,
        backlog=alive.backlog,
    )


def _away(presence: Sequence[Presence]) -> list[str]:
    return sorted(f"{item.alive.site}/{item.alive.name}" for item in presence if not item.alive.online)
