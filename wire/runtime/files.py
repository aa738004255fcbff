"""Reading configuration and secrets from disk; the text itself is understood by ``wire.settings``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel

from wire import settings
from wire.errors import ConfigError, Problem

M = TypeVar("M", bound=BaseModel)

MAX_CONFIG_BYTES = 1 << 20
MAX_SECRET_BYTES = 1 << 16


def load(path: str | Path, model: type[M], env: Mapping[str, str] = os.environ) -> M:
    """The only document of a file, as a model; raises ConfigError with every problem."""
    return settings.parse_one(read_text(path), str(path), env).load(model)


def load_all(path: str | Path, env: Mapping[str, str] = os.environ) -> list[settings.Document]:
    """Every document of a file, or of every ``*.yaml`` under a directory in name order."""
    root = Path(path)
    files = sorted(root.rglob("*.yaml")) if root.is_dir() else [root]
    if not files:
        raise ConfigError.at(str(path), "no *.yaml file in this directory")
    documents: list[settings.Document] = []
    problems: list[Problem] = []
    for file in files:
        try:
            documents += settings.parse(read_text(file), str(file), env)
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems)
    return documents


def read_text(path: str | Path, limit: int = MAX_CONFIG_BYTES) -> str:
    """A text file's content; raises ConfigError if it is missing, too long or not UTF-8."""
    return _decode(_read(path, limit), path)


def read_secret(path: str | Path) -> bytes:
    """A private file's content without the final newline.

    Raises ConfigError if anybody but the owner may read or write it.
    """
    try:
        mode = Path(path).stat().st_mode & 0o777
    except OSError as error:
        raise _unreadable(path, error) from None
    if mode & 0o077:
        raise ConfigError.at(str(path), f"mode {mode:04o} lets others see this secret", f"chmod 600 {path}")
    return _read(path, MAX_SECRET_BYTES).rstrip(b"\r\n")


def write_secret(path: str | Path, content: bytes) -> None:
    """A new file that only its owner can read; raises ConfigError if there is one already."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise ConfigError.at(str(path), f"cannot be written: {error.strerror}") from None
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def make_folder(path: Path) -> None:
    """Make a folder and those above it; raises ConfigError if that place can never be one."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError.at(
            str(path), f"cannot be made: {error.strerror}", "choose a folder that may be written"
        ) from None


def _read(path: str | Path, limit: int) -> bytes:
    try:
        with Path(path).open("rb") as file:
            content = file.read(limit + 1)
    except OSError as error:
        raise _unreadable(path, error) from None
    if len(content) > limit:
        raise ConfigError.at(str(path), f"longer than {limit} bytes")
    return content


def _decode(content: bytes, path: str | Path) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ConfigError.at(str(path), "is not UTF-8 text", line=line) from None


def _unreadable(path: str | Path, error: OSError) -> ConfigError:
    return ConfigError.at(str(path), f"cannot be read: {error.strerror}")
