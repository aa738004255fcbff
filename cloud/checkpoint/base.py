"""The checkpoint seam: a *term* names one ownership of a shard, and only the newest term may save.

Call order: ``claim`` once per ownership, then ``save`` any number of times. ``claim`` and ``save`` are each one
durable transaction. Both raise Unavailable while the store is away.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol, Self

from wire.errors import TwinlineError


class Fenced(TwinlineError):
    """Somebody else has claimed the shard since: nothing was written, and this owner must stop."""


@dataclass(frozen=True)
class Claim:
    """One ownership: its term and what the last owner saved, by key."""

    shard: int
    term: int
    blobs: Mapping[str, bytes]


class Checkpoint(Protocol):
    """Blobs by (shard, key), written only by the owner of the shard."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *exc: object) -> None: ...

    async def claim(self, shards: Iterable[int]) -> list[Claim]:
        """Take over the shards: raise each one's term by one and read its blobs, in one transaction."""
        ...

    async def save(self, terms: Mapping[int, int], blobs: Mapping[tuple[int, str], bytes]) -> None:
        """Write the changed blobs of all shards, or none: raises Fenced if any shard's term is not the given one."""
        ...
