"""Signed setpoints: only the exact bytes of a trusted key, for a point it may command, come through."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from wire.errors import BadData, Rejected
from wire.messages import Setpoint
from wire.signing import (
    MAX_ENVELOPE_BYTES,
    PREFIX,
    TrustedKey,
    TrustFile,
    key_from_pem,
    key_id,
    key_to_pem,
    new_key,
    public_text,
    read_envelope,
    sign,
    verify,
)

KEY = new_key()
SETPOINT = Setpoint(
    kid=key_id(KEY),
    site="demo",
    edge="edge-tank",
    device="tank",
    point="pump1-set",
    value=3.5,
    unit="V",
    cmd_id="c-1",
    issuer="operator",
    slot=8,
    term=1,
    revision=7,
    iat=1_000,
    exp=2_000,
    hold_s=60.0,
    nonce="boot-1",
    reason="raise the level",
)


def trusted(*points: str, kid: str = SETPOINT.kid) -> list[TrustedKey]:
    return [TrustedKey(kid=kid, public_key=public_text(KEY), points=points or ("demo/*/*/*",))]


def test_what_was_signed_comes_back() -> None:
    assert verify(sign(SETPOINT, KEY), trusted()) == SETPOINT


def test_the_body_travels_readable() -> None:
    signature, _, body = sign(SETPOINT, KEY).partition(b".")
    assert len(signature) == 86
    assert Setpoint.model_validate_json(body) == SETPOINT


@given(st.integers(min_value=0), st.integers(1, 255))
def test_no_flipped_byte_is_accepted(position: int, flip: int) -> None:
    payload = bytearray(sign(SETPOINT, KEY))
    payload[position % len(payload)] ^= flip
    with pytest.raises((BadData, Rejected)):
        verify(bytes(payload), trusted())


@given(st.integers(0, 400))
def test_no_truncation_is_accepted(length: int) -> None:
    payload = sign(SETPOINT, KEY)
    with pytest.raises((BadData, Rejected)):
        verify(payload[: min(length, len(payload) - 1)], trusted())


@pytest.mark.parametrize(
    ("trust", "reason"),
    [
        ([], "unknown-key"),
        (trusted(kid="other"), "unknown-key"),
        (trusted("demo/*/*/pump2-set"), "not-allowed"),
        (trusted("demo/edge-tank/tank/pump1-set", "other/*/*/*"), None),
        ([TrustedKey(kid=SETPOINT.kid, public_key=public_text(new_key()), points=("*/*/*/*",))], "signature"),
    ],
)
def test_who_may_command_what(trust: list[TrustedKey], reason: str | None) -> None:
    payload = sign(SETPOINT, KEY)
    if reason is None:
        assert verify(payload, trust) == SETPOINT
        return
    with pytest.raises(Rejected) as refused:
        verify(payload, trust)
    assert refused.value.reason == reason


def test_a_signature_without_our_prefix_is_worthless() -> None:
    body = sign(SETPOINT, KEY).partition(b".")[2]
    other = read_envelope(sign(SETPOINT, KEY))._replace(signature=KEY.sign(body))
    from base64 import urlsafe_b64encode

    payload = urlsafe_b64encode(other.signature).rstrip(b"=") + b"." + body
    with pytest.raises(Rejected, match="signature"):
        verify(payload, trusted())
    assert KEY.sign(PREFIX + body) == read_envelope(sign(SETPOINT, KEY)).signature


def test_an_oversize_envelope_is_not_parsed() -> None:
    with pytest.raises(BadData, match="oversize"):
        read_envelope(b"x" * (MAX_ENVELOPE_BYTES + 1))


@pytest.mark.parametrize(
    "payload", [b"", b".", b"a.b", "\u00e4.{}".encode(), b"\xff" * 86 + b".{}", b"=" * 86 + b".{}"]
)
def test_garbage_is_malformed(payload: bytes) -> None:
    with pytest.raises(BadData, match="malformed"):
        read_envelope(payload)


@pytest.mark.parametrize("field", ['"value":true', '"value":NaN', '"value":"3"', '"value":3.0,"extra":1'])
def test_strict_numbers_and_no_extras(field: str) -> None:
    head, _, body = sign(SETPOINT, KEY).partition(b".")
    with pytest.raises(BadData, match="malformed"):
        read_envelope(head + b"." + body.replace(b'"value":3.5', field.encode()))


def test_keys_survive_their_file() -> None:
    again = key_from_pem(key_to_pem(KEY))
    assert key_id(again) == key_id(KEY)
    assert verify(sign(SETPOINT, again), trusted()) == SETPOINT


@pytest.mark.parametrize("pem", [b"", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
def test_a_broken_key_file_is_bad_data(pem: bytes) -> None:
    with pytest.raises(BadData, match="key"):
        key_from_pem(pem)


@pytest.mark.parametrize(
    ("public_key", "points"),
    [
        ("short", ("a/b/c/d",)),
        (public_text(KEY), ()),
        (public_text(KEY), ("a/b/c",)),
        (public_text(KEY), ("a/b*/c/d",)),
    ],
)
def test_a_wrong_trust_entry_is_refused(public_key: str, points: tuple[str, ...]) -> None:
    with pytest.raises(ValidationError):
        TrustFile(trust="demo", keys=(TrustedKey(kid="k", public_key=public_key, points=points),))
