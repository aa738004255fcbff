"""Every topic string of the project.

Two hops, told apart by their third level so that one broker can carry both::

    tw/1/e/{site}/{gateway}/{edge}/...      edge <-> gateway      up/{stream} ack set alive latest
    tw/1/c/{shard}/{site}/{gateway}/...     gateway <-> cloud     up/{stream} ack set/{edge} alive alive/{edge} latest

``stream`` is ``telemetry`` or ``results``. Names hold no wildcard and no slash (``wire.points``), so nothing needs
escaping.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import NamedTuple

ROOT = "tw/1"
SHARDS = 256


def shard_of(lane: str) -> int:
    """The shard of a lane (``site/gateway`` unless the registry says otherwise): blake2b-64 modulo 256."""
    return int.from_bytes(blake2b(lane.encode(), digest_size=8).digest(), "big") % SHARDS


class EdgeRoute(NamedTuple):
    """Topics between one edge and its gateway."""

    site: str
    gateway: str
    edge: str

    def up(self, stream: str) -> str:
        return f"{self._base}/up/{stream}"

    @property
    def ack(self) -> str:
        return f"{self._base}/ack"

    @property
    def setpoint(self) -> str:
        return f"{self._base}/set"

    @property
    def alive(self) -> str:
        return f"{self._base}/alive"

    @property
    def latest(self) -> str:
        return f"{self._base}/latest"

    @property
    def _base(self) -> str:
        return f"{ROOT}/e/{self.site}/{self.gateway}/{self.edge}"


class GatewayRoute(NamedTuple):
    """Topics between one gateway and the cloud; the shard is fixed by the lane."""

    site: str
    gateway: str

    @property
    def shard(self) -> int:
        return shard_of(f"{self.site}/{self.gateway}")

    def up(self, stream: str) -> str:
        return f"{self._base}/up/{stream}"

    @property
    def ack(self) -> str:
        return f"{self._base}/ack"

    def setpoint(self, edge: str) -> str:
        return f"{self._base}/set/{edge}"

    @property
    def setpoints(self) -> str:
        """What the gateway subscribes to: setpoints for any of its edges."""
        return f"{self._base}/set/+"

    @property
    def alive(self) -> str:
        return f"{self._base}/alive"

    def edge_alive(self, edge: str) -> str:
        return f"{self._base}/alive/{edge}"

    @property
    def latest(self) -> str:
        return f"{self._base}/latest"

    @property
    def _base(self) -> str:
        return f"{ROOT}/c/{self.shard}/{self.site}/{self.gateway}"


def edges_up(site: str, gateway: str) -> str:
    """Filter: every stream of every edge of one gateway."""
    return f"{ROOT}/e/{site}/{gateway}/+/up/+"


def edges_alive(site: str, gateway: str) -> str:
    """Filter: presence of every edge of one gateway."""
    return f"{ROOT}/e/{site}/{gateway}/+/alive"


def edges_latest(site: str, gateway: str) -> str:
    """Filter: newest values of every edge of one gateway while it drains a backlog."""
    return f"{ROOT}/e/{site}/{gateway}/+/latest"


CLOUD_UP = f"{ROOT}/c/+/+/+/up/+"
"""Filter: every stream of every gateway of every shard."""
CLOUD_ALIVE = f"{ROOT}/c/+/+/+/alive"
CLOUD_EDGE_ALIVE = f"{ROOT}/c/+/+/+/alive/+"
CLOUD_LATEST = f"{ROOT}/c/+/+/+/latest"


def may_carry(topic: str, source: str, stream: str) -> bool:
    """Whether records of this source and stream belong on this upward topic: an edge speaks for itself alone, a gateway
    for the edges of its site."""
    match topic.split("/"):
        case ["tw", "1", "e", site, _, edge, "up", carried]:
            return (source, stream) == (f"{site}/{edge}", carried)
        case ["tw", "1", "c", _, site, _, "up", carried]:
            return source.startswith(f"{site}/") and stream == carried
    return False


def edge_of(topic: str) -> str:
    """The edge named in an edge-hop topic or at the end of a ``set``/``alive`` topic of the cloud hop."""
    levels = topic.split("/")
    return levels[5] if levels[2] == "e" else levels[-1]


def gateway_of(topic: str) -> GatewayRoute:
    """The gateway that a cloud-hop topic belongs to."""
    levels = topic.split("/")
    return GatewayRoute(levels[4], levels[5])
