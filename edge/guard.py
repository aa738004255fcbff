"""Judges a signed setpoint: what must be true before this edge writes anything.

The checks come in one fixed order (architecture 5): size, form, key, right of the key, signature, addressee, boot
nonce, clock, deadline, revision, then the edge's own limits. The guard is a function of its arguments; whoever calls
it persists the revision before acting on the verdict.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from wire.codec import decode
from wire.errors import BadData, Rejected
from wire.messages import REPEATED, Setpoint, State

if TYPE_CHECKING:
    from wire.signing import TrustedKey

Key = tuple[str, str]
"""Device and point."""
NOBODY: Key = ("unknown", "unknown")


class Limits(NamedTuple):
    """What the profile allows for one writable point, in the point's unit."""

    unit: str
    low: float
    high: float
    rate: float | None = None
    """Greatest change per second."""
    every_s: float = 0.0
    """Least time between two different values."""


class Last(NamedTuple):
    """What this edge knows of a point's past. ``value`` was written or read ``age_s`` ago; None is unknown."""

    term: int = 0
    revision: int = -1
    cmd_id: str = ""
    value: float | None = None
    age_s: float = 0.0
    standing: bool = False
    """Its lease runs."""


@dataclass(frozen=True, slots=True)
class Desk:
    """What stays the same from one judgement to the next."""

    site: str
    edge: str
    nonce: str
    trust: Sequence[TrustedKey]
    limits: Mapping[Key, Limits]
    skew_ns: int


class Verdict(NamedTuple):
    """``write`` it, ``renew`` the lease of what stands, ``repeat`` of what was seen already, or ``refuse`` it.

    ``setpoint`` is None where the signature did not hold: a forgery is told of as `UNVERIFIED`, never answered by the
    name that it claims.
    """

    action: Literal["write", "renew", "repeat", "refuse"]
    setpoint: Setpoint | None
    state: State = State.ACCEPTED
    reason: str = ""


def judge(payload: bytes, desk: Desk, last: Mapping[Key, Last], now: int, *, clock_trusted: bool = True) -> Verdict:
    """The verdict on one received envelope; never raises for anything a sender can do."""
    if not desk.trust:
        return Verdict("refuse", None, State.REJECTED, "unknown-key")
    from wire.signing import verify  # 7 MB of cryptography, which an edge that trusts nobody does not carry

    try:
        setpoint = verify(payload, desk.trust)
    except (BadData, Rejected) as error:
        return Verdict("refuse", None, State.REJECTED, error.reason)
    past = last.get((setpoint.device, setpoint.point), Last())
    refusal = (
        _addressee(setpoint, desk)
        or _repetition(setpoint, past)
        or _moment(setpoint, desk, now, clock_trusted=clock_trusted)
        or _order(setpoint, past)
        or _limits(setpoint, desk, past)
    )
    if refusal is not None:
        return refusal
    standing = past.standing and past.cmd_id == setpoint.cmd_id and past.value == setpoint.value
    return Verdict("renew" if standing else "write", setpoint)


def claimed(payload: bytes) -> Key:
    """The point that an envelope names, for people to look at and not to be believed; `NOBODY` if it names none."""
    try:
        setpoint = decode(Setpoint, payload.partition(b".")[2])
    except BadData:
        return NOBODY
    return setpoint.device, setpoint.point


def _addressee(setpoint: Setpoint, desk: Desk) -> Verdict | None:
    if (setpoint.site, setpoint.edge) != (desk.site, desk.edge):
        return _refuse(setpoint, "addressee")
    return _refuse(setpoint, "nonce") if setpoint.nonce != desk.nonce else None


def _moment(setpoint: Setpoint, desk: Desk, now: int, *, clock_trusted: bool) -> Verdict | None:
    if not clock_trusted:
        return _refuse(setpoint, "clock-untrusted")
    if setpoint.iat - desk.skew_ns > now:
        return _refuse(setpoint, "issued-in-future")
    return Verdict("refuse", setpoint, State.EXPIRED, "deadline") if now > setpoint.exp else None


def _repetition(setpoint: Setpoint, past: Last) -> Verdict | None:
    """Another copy of the newest accepted command, however late: it must not end what it is a copy of."""
    seen = (setpoint.term, setpoint.revision) <= (past.term, past.revision)
    repeated = seen and setpoint.cmd_id == past.cmd_id
    return Verdict("repeat", setpoint, State.ACCEPTED, REPEATED) if repeated else None


def _order(setpoint: Setpoint, past: Last) -> Verdict | None:
    ours, held = (setpoint.term, setpoint.revision), (past.term, past.revision)
    if ours > held:
        return None
    return Verdict("refuse", setpoint, State.SUPERSEDED if ours < held else State.REJECTED, "revision")


def _limits(setpoint: Setpoint, desk: Desk, past: Last) -> Verdict | None:
    limits = desk.limits.get((setpoint.device, setpoint.point))
    if limits is None:
        return _refuse(setpoint, "not-listed")
    if setpoint.unit != limits.unit:
        return _refuse(setpoint, "unit")
    if not limits.low <= setpoint.value <= limits.high:
        return _refuse(setpoint, "range")
    if past.value == setpoint.value:
        return None
    if past.value is not None and past.age_s < limits.every_s:
        return _refuse(setpoint, "too-soon")
    if limits.rate is not None and past.value is None:
        return _refuse(setpoint, "state-unknown")
    if limits.rate is not None and abs(setpoint.value - (past.value or 0.0)) > limits.rate * past.age_s:
        return _refuse(setpoint, "slew")
    return None


def _refuse(setpoint: Setpoint, reason: str) -> Verdict:
    return Verdict("refuse", setpoint, State.REJECTED, reason)
