"""Plug-ins by name: ``kind: modbus`` in a file is the module ``edge.drivers.modbus``, found by being there."""

from __future__ import annotations

import importlib
import pkgutil
import re
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType

from wire.errors import ConfigError

CONFIG_GROUP = "twinline.configs"
"""Entry points: first key of a document -> the model that checks it."""

_KIND = re.compile(r"^[a-z][a-z0-9_]*\Z")


def kinds(package: str) -> list[str]:
    """Names of the plug-ins in a package; ``base`` and private modules are none."""
    path = importlib.import_module(package).__path__
    return sorted(
        module.name for module in pkgutil.iter_modules(path) if module.name != "base" and "_" not in module.name
    )


def load(package: str, kind: str, *, file: str = "configuration") -> ModuleType:
    """Import ``package.kind``; only then is its protocol library needed.

    Raises ConfigError naming the kinds there are, or the extra to install.
    """
    if not _KIND.match(kind) or kind not in kinds(package):
        raise ConfigError.at(file, f"unknown kind `{kind}`", f"available here: {', '.join(kinds(package))}")
    try:
        return importlib.import_module(f"{package}.{kind}")
    except ModuleNotFoundError as error:
        missing = error.name or kind
        raise ConfigError.at(
            file, f"kind `{kind}` needs the Python package `{missing}`", f"pip install 'twinline[{kind}]'"
        ) from error


def config_kinds() -> dict[str, EntryPoint]:
    """Every kind of configuration file that is installed, by the first key of its documents.

    ``config_kinds()["edge"].load()`` is the model; loading imports its tier.
    """
    return {point.name: point for point in entry_points(group=CONFIG_GROUP)}
