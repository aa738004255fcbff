"""What the setpoint path talks about: an *order* asks, a *command* is the order as entered in the ledger.

Values are SI inside; an order keeps the number and the unit that the person wrote.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from cloud.twins.model import Twin
from wire.messages import ResultBody, State
from wire.points import PointId
from wire.topics import GatewayRoute


@dataclass(frozen=True, slots=True)
class Order:
    """A request to bring one actuator of one twin to a value.

    ``unit`` defaults to the actuator's declared unit. ``key`` makes asking twice harmless: the same key with the same
    order is the same command, with another order it is refused as ``conflict``. ``deadline_s`` is the time within
    which the edge must have begun to write. ``slot`` defaults to the actuator's; a lower slot outranks a higher one.
    """

    twin: str
    actuator: str
    value: float
    unit: str | None = None
    issuer: str = "api"
    reason: str = ""
    key: str | None = None
    deadline_s: float = 10.0
    slot: int | None = None


class Revision(NamedTuple):
    """Order of all setpoints of one point: a newer owner's term outranks any revision of an older one."""

    term: int
    revision: int


@dataclass(frozen=True, slots=True)
class Command:
    """One order as entered: what was asked, by whom, of which point, and until when. Never changes.

    ``value_si`` and ``value_device`` are None only when the order was refused before they could be known.
    ``patience_s`` is how long after ``exp`` the edge's final word is still expected (settle, dwell and travel).
    """

    cmd_id: str
    key: str | None
    twin: str
    actuator: str
    point: PointId
    value: float
    unit: str
    value_si: float | None
    value_device: float | None
    device_unit: str
    issuer: str
    slot: int
    reason: str
    requested: int
    exp: int
    hold_s: float
    patience_s: float


@dataclass(frozen=True, slots=True)
class Step:
    """One line of a command's story: ``what`` is a ``State``, ``renewed``, ``released`` (no longer so) or ``note``."""

    what: str
    reason: str
    at: int
    detail: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Entry:
    """A command and its story so far."""

    command: Command
    steps: tuple[Step, ...]

    @property
    def state(self) -> State:
        """The newest state: final once there is a final one, and then for ever."""
        states = [State(step.what) for step in self.steps if step.what in _STATES]
        return next((state for state in states if state.final), states[-1])

    @property
    def reason(self) -> str:
        """Why it is in that state."""
        return next(step.reason for step in reversed(self.steps) if step.what == self.state)

    @property
    def standing(self) -> bool:
        """True while the value holds at the device because its lease is being renewed."""
        return self.state is State.VERIFIED and all(step.what != "released" for step in self.steps)

    @property
    def live(self) -> bool:
        """True while somebody has to attend to it."""
        return self.standing or not self.state.final

    @property
    def granted(self) -> int | None:
        """When the newest lease was sent, or None if none ever was."""
        grants = [step.at for step in self.steps if step.what in (State.SENT, "renewed")]
        return grants[-1] if grants else None


_STATES = frozenset(State)


@dataclass(frozen=True, slots=True)
class EdgeState:
    """What is known of one edge now.

    ``term`` is the term under which this process owns the edge's lane. ``revisions`` are the edge's own persisted
    ones by (device, point), from its Alive: a restored ledger jumps ahead of them.
    """

    route: GatewayRoute
    nonce: str
    online: bool
    term: int
    revisions: Mapping[tuple[str, str], Revision] = field(default_factory=dict)


class Told(NamedTuple):
    """A result and whose word it is: ``source`` is the ``site/edge`` of the stream that brought it."""

    source: str
    body: ResultBody


class EdgeView(Protocol):
    """What commands need to know of the field; answered from memory, never by waiting."""

    def edge(self, source: str) -> EdgeState | None:
        """The edge ``site/edge``, or None if it has never announced itself."""
        ...

    def device_unit(self, point: PointId) -> str | None:
        """The unit at the device of a writable point, or None if its source never declared it writable."""
        ...


class TwinView(Protocol):
    """Where twins are found by name."""

    def twin(self, name: str) -> Twin | None:
        """The twin registered under this name."""
        ...
