"""Making the secrets of a new cloud."""

from __future__ import annotations

from pathlib import Path
from secrets import token_urlsafe

from wire import settings
from wire.errors import ConfigError
from wire.runtime.files import write_secret
from wire.signing import TrustFile, key_id, key_to_pem, new_key, public_text

KEY, TOKEN, TRUST = "cloud.key", "token", "trust.yaml"

_TRUST_TEXT = """\
# Whose setpoints an edge obeys. Copy this file to every edge and name it there under `trust:`.
# A point is site/edge/device/point; `*` stands for any name at its level.
trust: twinline
keys:
  - kid: {kid}
    public_key: "{public}"
    points: [{points}]
"""


def init(folder: Path, points: list[str]) -> list[Path]:
    """Write ``cloud.key`` (signs setpoints) and ``token`` (opens the API), both private, and ``trust.yaml``.

    Raises ConfigError if a pattern is wrong or if any of the files is there already: keys are never overwritten.
    """
    paths = [folder / name for name in (KEY, TOKEN, TRUST)]
    there = [path for path in paths if path.exists()]
    if there:
        raise ConfigError([problem for path in there for problem in _exists(path).problems])
    key = new_key()
    quoted = ", ".join(f'"{point}"' for point in points)
    trust = _TRUST_TEXT.format(kid=key_id(key), public=public_text(key), points=quoted)
    settings.parse_one(trust, "--point").load(TrustFile)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_secret(paths[0], key_to_pem(key))
        write_secret(paths[1], token_urlsafe(32).encode() + b"\n")
        paths[2].write_text(trust)
    except OSError as error:
        raise ConfigError.at(str(folder), f"cannot be written: {error.strerror}") from None
    return paths


def _exists(path: Path) -> ConfigError:
    return ConfigError.at(str(path), "is there already", "choose another folder; keys are never overwritten")
