"""The gateway's configuration file (first key ``gateway:``)."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from gateway.normalise import Rule
from wire.points import Name
from wire.runtime.mqtt import MqttConfig
from wire.settings import Duration, LocalPath, Settings, Size


class PointRule(Settings):
    """What this gateway checks on one point, in the device's unit.

    A deadband takes readings away from whoever listens above, so it needs the author's word that no twin is fed by the
    point: ``feeds_twin: false``.
    """

    edge: Name
    device: Name
    point: Name
    range: tuple[float, float] | None = None
    deadband: Annotated[float, Field(ge=0)] = 0.0
    feeds_twin: bool = True

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.range is not None and not self.range[0] < self.range[1]:
            raise ValueError("range must be [low, high] with low below high")
        if self.deadband and self.feeds_twin:
            raise ValueError("a deadband starves a filter; if no twin uses this point, say feeds_twin: false")
        return self

    def rule(self) -> Rule:
        """The same, as the normaliser wants it."""
        if self.range is None:
            return Rule(deadband=self.deadband)
        return Rule(self.range[0], self.range[1], self.deadband)


class GatewayConfig(Settings):
    """One site gateway between the broker of its edges and the broker of the cloud (they may be the same)."""

    gateway: Name
    site: Name
    state: LocalPath
    """Directory of the outbox and of the set-aside payloads."""
    south: MqttConfig
    north: MqttConfig
    quota: Annotated[Size, Field(ge=1 << 20)] = 1 << 30
    """Hard cap of the outbox on disk; what it drops becomes a gap record."""
    grace: Duration = 600.0
    """How long acknowledged records stay, so that an older checkpoint of the cloud can still be replayed."""
    points: tuple[PointRule, ...] = ()

    @model_validator(mode="after")
    def _points_once(self) -> Self:
        names = [(rule.edge, rule.device, rule.point) for rule in self.points]
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise ValueError(f"points listed twice: {', '.join('/'.join(name) for name in sorted(twice))}")
        return self

    def rules(self, edge: str) -> dict[tuple[str, str], Rule]:
        """The rules of one edge's points, by (device, point)."""
        return {(item.device, item.point): item.rule() for item in self.points if item.edge == edge}
