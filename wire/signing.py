"""Signed setpoints: ``base64url(signature) "." JSON``, Ed25519 (RFC 8032) over a fixed prefix and the JSON's own bytes.

The signature covers the bytes that were received, never a re-serialisation. Whoever verifies holds a short list of
public keys, each with the points it may command; nobody on the way is trusted.
"""

from __future__ import annotations

import binascii
from base64 import urlsafe_b64encode
from collections.abc import Iterable
from hashlib import blake2b
from typing import Annotated, NamedTuple

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from wire.codec import decode, encode
from wire.errors import BadData, Rejected
from wire.messages import Setpoint
from wire.points import NAME_PATTERN, Name, PointId
from wire.settings import Settings

MAX_ENVELOPE_BYTES = 4096
PREFIX = b"twinline/setpoint/1\n"
"""Separates this use of a key from any other: a signature made for something else never verifies here."""

_SIGNATURE_CHARACTERS = 86
_PUBLIC_CHARACTERS = 43


class Envelope(NamedTuple):
    """A parsed envelope. Until it is verified, ``setpoint`` is only what somebody claims."""

    setpoint: Setpoint
    signature: bytes
    body: bytes


def new_key() -> Ed25519PrivateKey:
    """A fresh signing key from the operating system's randomness."""
    return Ed25519PrivateKey.generate()


def key_to_pem(key: Ed25519PrivateKey) -> bytes:
    """The private key as unencrypted PKCS#8 PEM; the file that holds it must be mode 0600."""
    # imported here: an edge only verifies, and the serialisers cost it a megabyte
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def key_from_pem(pem: bytes) -> Ed25519PrivateKey:
    """Read a private key; raises BadData("key")."""
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise BadData("key", "not an unencrypted private key in PEM") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise BadData("key", "not an Ed25519 key")
    return key


def public_text(key: Ed25519PrivateKey) -> str:
    """The public half as it stands in a trust file: base64url without padding."""
    return _encode(key.public_key().public_bytes_raw())


def key_id(key: Ed25519PrivateKey) -> str:
    """A name for a key that follows from the key itself."""
    return "k" + blake2b(public_text(key).encode(), digest_size=8).hexdigest()


def _check_public(text: str) -> str:
    try:
        Ed25519PublicKey.from_public_bytes(_decode(text, _PUBLIC_CHARACTERS))
    except (BadData, ValueError):
        raise PydanticCustomError("public_key", "must be an Ed25519 public key in base64url") from None
    return text


_PATTERN_LEVEL = rf"(\*|{NAME_PATTERN[1:-2]})"
Pattern = Annotated[str, Field(pattern=rf"^{_PATTERN_LEVEL}(/{_PATTERN_LEVEL}){{3}}$")]
"""``site/edge/device/point``; each level is a name or ``*``."""


class TrustedKey(Settings):
    """One public key and the points that its owner may command."""

    kid: Name
    public_key: Annotated[str, AfterValidator(_check_public)]
    points: Annotated[tuple[Pattern, ...], Field(min_length=1)]

    def may_command(self, point: PointId) -> bool:
        return any(
            all(want in ("*", have) for want, have in zip(pattern.split("/"), point, strict=True))
            for pattern in self.points
        )

    @property
    def key(self) -> Ed25519PublicKey:
        return Ed25519PublicKey.from_public_bytes(_decode(self.public_key, _PUBLIC_CHARACTERS))


class TrustFile(Settings):
    """``trust:`` names whose keys these are; an edge obeys nobody else."""

    trust: Name
    keys: tuple[TrustedKey, ...]


def point_of(setpoint: Setpoint) -> PointId:
    """The point that a setpoint asks to write."""
    return PointId(setpoint.site, setpoint.edge, setpoint.device, setpoint.point)


def sign(setpoint: Setpoint, key: Ed25519PrivateKey) -> bytes:
    """The envelope of a setpoint; ``setpoint.kid`` must name this key in the edge's trust file."""
    body = encode(setpoint)
    payload = _encode(key.sign(PREFIX + body)).encode() + b"." + body
    if len(payload) > MAX_ENVELOPE_BYTES:
        raise Rejected("oversize", f"{len(payload)} bytes, at most {MAX_ENVELOPE_BYTES}")
    return payload


def read_envelope(payload: bytes) -> Envelope:
    """Take an envelope apart without believing it; raises BadData (``oversize``, ``malformed``, ``version``)."""
    if len(payload) > MAX_ENVELOPE_BYTES:
        raise BadData("oversize", f"{len(payload)} bytes, at most {MAX_ENVELOPE_BYTES}")
    head, dot, body = payload.partition(b".")
    if not dot:
        raise BadData("malformed", "no signature in front of the body")
    try:
        signature = _decode(head.decode("ascii"), _SIGNATURE_CHARACTERS)
    except UnicodeDecodeError:
        raise BadData("malformed", "the signature is not base64url") from None
    return Envelope(decode(Setpoint, body), signature, body)


def verify(payload: bytes, trust: Iterable[TrustedKey]) -> Setpoint:
    """The setpoint, if a trusted key that may command its point has signed exactly these bytes.

    Checks in this order: size, form, key known, key allowed for the point, signature. Raises BadData for the first
    two and Rejected (``unknown-key``, ``not-allowed``, ``signature``) for the others; the claims of a message that
    failed here must never be answered as if they were true.
    """
    envelope = read_envelope(payload)
    setpoint = envelope.setpoint
    key = next((each for each in trust if each.kid == setpoint.kid), None)
    if key is None:
        raise Rejected("unknown-key", f"no trusted key is called {setpoint.kid!r}")
    if not key.may_command(point_of(setpoint)):
        raise Rejected("not-allowed", f"key {key.kid} may not command {point_of(setpoint)}")
    try:
        key.key.verify(envelope.signature, PREFIX + envelope.body)
    except InvalidSignature:
        raise Rejected("signature", f"not signed by key {key.kid}") from None
    return setpoint


def _encode(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def _decode(text: str, characters: int) -> bytes:
    """Strict base64url of a known length: one text for one value."""
    if len(text) != characters or not text.isascii() or "+" in text or "/" in text:
        raise BadData("malformed", f"expected {characters} characters of base64url")
    try:
        raw = binascii.a2b_base64(
            text.translate({ord("-"): "+", ord("_"): "/"}) + "=" * (-characters % 4), strict_mode=True
        )
    except binascii.Error:
        raise BadData("malformed", "not base64url") from None
    if _encode(raw) != text:
        raise BadData("malformed", "base64url with loose ends")
    return raw
