"""Names and ids: a *site* has gateways, a gateway serves *edges*, an edge reads *devices*, a device has *points*.

A point's global id is ``site/edge/device/point``; the gateway is only a route, so a moved edge keeps its series.
"""

from __future__ import annotations

import re
from typing import Annotated, NamedTuple

from pydantic import StringConstraints

from wire.errors import BadData

NAME_PATTERN = r"^[a-z0-9][a-z0-9_-]{0,62}\Z"
"""Path names: no wildcard, path, query or line-protocol character can ever enter one."""

NAME_FORM = r"^[a-z0-9][a-z0-9_-]{0,62}$"
"""The same for regular expressions in which ``$`` is the very end, such as pydantic's."""

SYMBOL_PATTERN = r"^[A-Za-z][A-Za-z0-9_]{0,62}\Z"
"""Symbols inside twin types: what an expression may name."""

_NAME = re.compile(NAME_PATTERN)

Name = Annotated[str, StringConstraints(pattern=NAME_FORM, strict=True)]
Symbol = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,62}$", strict=True)]


class PointId(NamedTuple):
    """Global id of one point, written ``site/edge/device/point``."""

    site: str
    edge: str
    device: str
    point: str

    @classmethod
    def parse(cls, text: str) -> PointId:
        """Read the written form; raises BadData("point-id") for anything else."""
        parts = text.split("/")
        if len(parts) != 4 or not all(_NAME.match(part) for part in parts):
            raise BadData("point-id", f"{text!r} is not site/edge/device/point in [a-z0-9_-]")
        return cls(*parts)

    @property
    def source(self) -> str:
        """The edge that reads the point: ``site/edge``."""
        return f"{self.site}/{self.edge}"

    def __str__(self) -> str:
        return "/".join(self)
