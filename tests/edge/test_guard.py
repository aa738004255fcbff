"""The guard: one true setpoint passes, and every single flaw is refused with its own reason."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.guard import NOBODY, Desk, Last, Limits, Verdict, claimed, judge
from wire.messages import Setpoint, State
from wire.signing import TrustedKey, new_key, public_text, sign

NOW = 1_700_000_000_000_000_000
SECOND = 1_000_000_000
KEY, OTHER = new_key(), new_key()
POINT = ("tank", "pump-set")
DESK = Desk(
    "demo",
    "edge-1",
    "boot",
    [
        TrustedKey(kid="k1", public_key=public_text(KEY), points=("demo/edge-1/tank/*", "demo/other/*/*")),
        TrustedKey(kid="k2", public_key=public_text(OTHER), points=("demo/edge-1/zone/*",)),
    ],
    {POINT: Limits("V", 0.0, 10.0)},
    2 * SECOND,
)
GOOD: dict[str, Any] = {
    "kid": "k1", "site": "demo", "edge": "edge-1", "device": "tank", "point": "pump-set", "value": 3.0, "unit": "V",
    "cmd_id": "c1", "issuer": "me", "slot": 8, "term": 1, "revision": 5, "iat": NOW, "exp": NOW + 5 * SECOND,
    "hold_s": 10.0, "nonce": "boot", "reason": "test",
}  # fmt: skip


def envelope(**changes: Any) -> bytes:
    return sign(Setpoint.model_validate(GOOD | changes), KEY)


def ruling(payload: bytes, last: Last | None = None, desk: Desk = DESK, **more: Any) -> Verdict:
    return judge(payload, desk, {POINT: last or Last(1, 4, "c0")}, NOW, **more)


def test_a_true_setpoint_passes() -> None:
    verdict = ruling(envelope())
    assert (verdict.action, verdict.setpoint) == ("write", Setpoint.model_validate(GOOD))


@pytest.mark.parametrize(
    ("changes", "state", "reason"),
    [
        ({"edge": "other"}, State.REJECTED, "addressee"),
        ({"nonce": "old boot"}, State.REJECTED, "nonce"),
        ({"iat": NOW + 3 * SECOND}, State.REJECTED, "issued-in-future"),
        ({"exp": NOW - 1}, State.EXPIRED, "deadline"),
        ({"revision": 3}, State.SUPERSEDED, "revision"),
        ({"revision": 4}, State.REJECTED, "revision"),
        ({"term": 0, "revision": 99}, State.SUPERSEDED, "revision"),
        ({"point": "valve"}, State.REJECTED, "not-listed"),
        ({"unit": "mV"}, State.REJECTED, "unit"),
        ({"value": 10.000001}, State.REJECTED, "range"),
        ({"value": -0.000001}, State.REJECTED, "range"),
    ],
)
def test_each_flaw_has_its_reason(changes: dict[str, Any], state: State, reason: str) -> None:
    verdict = ruling(envelope(**changes))
    assert (verdict.action, verdict.state, verdict.reason) == ("refuse", state, reason)
    assert verdict.setpoint is not None


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "malformed"),
        (b"x" * 5000, "oversize"),
        (envelope()[:-1], "malformed"),
        (envelope().replace(b'"value":3.0', b'"value":4.0'), "signature"),
        (envelope(kid="nobody"), "unknown-key"),
        (envelope(kid="k2"), "not-allowed"),
        (envelope(device="zone"), "not-allowed"),
        (sign(Setpoint.model_validate(GOOD), OTHER), "signature"),
    ],
)
def test_a_forgery_is_refused_in_nobody_s_name(payload: bytes, reason: str) -> None:
    assert ruling(payload) == Verdict("refuse", None, State.REJECTED, reason)


def test_without_trust_nobody_is_obeyed() -> None:
    desk = Desk("demo", "edge-1", "boot", [], DESK.limits, DESK.skew_ns)
    assert ruling(envelope(), desk=desk).reason == "unknown-key"


def test_a_clock_that_cannot_be_right_obeys_nobody() -> None:
    assert ruling(envelope(), clock_trusted=False).reason == "clock-untrusted"


def test_a_repetition_is_told_from_an_overtaken_command() -> None:
    assert ruling(envelope(), Last(1, 5, "c1", 3.0, 1.0, standing=True)).action == "repeat"
    assert ruling(envelope(), Last(1, 6, "c2")).state is State.SUPERSEDED


@pytest.mark.parametrize("held", [5, 6])
def test_a_late_copy_of_what_was_accepted_is_a_repetition_whatever_the_clock_says(held: int) -> None:
    past = Last(1, held, "c1", 3.0, 1.0, standing=True)
    late = judge(envelope(), DESK, {POINT: past}, NOW + 3600 * SECOND, clock_trusted=False)
    assert (late.action, late.state, late.reason) == ("repeat", State.ACCEPTED, "repeated")


def test_an_envelope_tells_whom_it_names_or_nobody() -> None:
    assert claimed(envelope(kid="nobody")) == POINT
    assert claimed(envelope()[:-1]) == claimed(b"\0") == claimed(b"x" * 5000) == NOBODY


def test_a_renewal_extends_only_what_stands() -> None:
    standing = Last(1, 4, "c1", 3.0, 1.0, standing=True)
    assert ruling(envelope(), standing).action == "renew"
    assert ruling(envelope(value=4.0), standing).action == "write"
    assert ruling(envelope(), standing._replace(standing=False)).action == "write"
    assert ruling(envelope(), standing._replace(cmd_id="c0")).action == "write"


@pytest.mark.parametrize(
    ("last", "reason"),
    [
        (Last(value=1.0, age_s=1.0), "slew"),
        (Last(value=1.0, age_s=2.0), ""),
        (Last(value=None, age_s=99.0), "state-unknown"),
        (Last(value=3.0, age_s=0.0), ""),
        (Last(value=2.9, age_s=0.4), "too-soon"),
    ],
)
def test_rate_and_least_time(last: Last, reason: str) -> None:
    desk = Desk("demo", "edge-1", "boot", DESK.trust, {POINT: Limits("V", 0.0, 10.0, 1.0, 0.5)}, 0)
    assert ruling(envelope(), last, desk).reason == reason


@given(st.binary(max_size=300))
def test_nothing_that_is_sent_makes_it_raise(payload: bytes) -> None:
    assert ruling(payload).action == "refuse"


@given(st.integers(0, len(envelope()) - 1), st.integers(1, 255))
def test_no_changed_byte_is_obeyed(at: int, flip: int) -> None:
    payload = bytearray(envelope())
    payload[at] ^= flip
    assert ruling(bytes(payload)).setpoint is None
