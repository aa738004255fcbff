"""Who is there: the newest Alive of every edge and gateway, and what it says about reaching them. No I/O."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from wire.codec import decode
from wire.errors import BadData
from wire.messages import Alive
from wire.runtime.link import Delivery
from wire.topics import GatewayRoute, gateway_of

STALE_AFTER_NS = 35_000_000_000
"""Three missed announcements (one every 10 s) and a little."""


class Heard(NamedTuple):
    """One announcement: which gateway carried it, and when it arrived here (ns UTC).

    ``stale``: it was already old when it arrived, kept by a broker or repeated by a gateway, so nobody may be behind it
    any more. (A clock that is half a minute off looks the same, and no setpoint passes such an edge's guard anyway.)
    """

    alive: Alive
    route: GatewayRoute
    received: int
    stale: bool


class Presences:
    """Announcements by role and name."""

    def __init__(self) -> None:
        self._heard: dict[tuple[str, str], Heard] = {}

    def __iter__(self) -> Iterator[Heard]:
        return iter(self._heard.values())

    def hear(self, delivery: Delivery, now: int) -> Heard:
        """Take in one announcement.

        Raises BadData: ``malformed`` and its like, or ``misplaced`` if it does not belong to its topic. An
        stale announcement that is older than the one already held changes nothing.
        """
        alive, route = decode(Alive, delivery.payload), gateway_of(delivery.topic)
        name = delivery.topic.rsplit("/", 1)[-1] if alive.role == "edge" else route.gateway
        depth = 8 if alive.role == "edge" else 7
        if (alive.site, alive.name) != (route.site, name) or delivery.topic.count("/") != depth - 1:
            raise BadData("misplaced", f"{alive.role} {alive.site}/{alive.name} announced on {delivery.topic}")
        stale = now - alive.at > STALE_AFTER_NS
        heard = Heard(alive, route, now, stale)
        key = (alive.role, f"{alive.site}/{alive.name}")
        before = self._heard.get(key)
        if before is None or not stale or alive.at >= before.alive.at:
            self._heard[key] = heard
        return heard

    def edge(self, source: str) -> Heard | None:
        """The newest announcement of an edge."""
        return self._heard.get(("edge", source))

    def online(self, heard: Heard, now: int) -> bool:
        """True if a message sent now has somebody to reach: neither it nor its gateway is silent or gone."""
        gateway = self._heard.get(("gateway", f"{heard.route.site}/{heard.route.gateway}"))
        chain = [heard] if gateway is None else [heard, gateway]
        return all(each.alive.online and not each.stale and now - each.received <= STALE_AFTER_NS for each in chain)
