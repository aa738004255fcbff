"""Checkpoints in memory: for tests and for runs that need not survive their process."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Self

from cloud.checkpoint.base import Claim, Fenced


class MemoryCheckpoint:
    """Lives as long as the object does; several owners may share one, as they would share a database."""

    def __init__(self) -> None:
        self._terms: dict[int, int] = {}
        self._blobs: dict[int, dict[str, bytes]] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        return None

    async def claim(self, shards: Iterable[int]) -> list[Claim]:
        claims = []
        for shard in sorted(set(shards)):
            self._terms[shard] = self._terms.get(shard, 0) + 1
            claims.append(Claim(shard, self._terms[shard], dict(self._blobs.get(shard, {}))))
        return claims

    async def save(self, terms: Mapping[int, int], blobs: Mapping[tuple[int, str], bytes]) -> None:
        refuse_if_fenced(self._terms, terms, blobs)
        for (shard, key), blob in blobs.items():
            self._blobs.setdefault(shard, {})[key] = blob


def refuse_if_fenced(
    current: Mapping[int, int], terms: Mapping[int, int], blobs: Mapping[tuple[int, str], bytes]
) -> None:
    """Raise Fenced unless every given term is the current one and every blob lies in a shard whose term is given."""
    stale = [shard for shard, term in terms.items() if current.get(shard) != term]
    foreign = {shard for shard, _ in blobs} - terms.keys()
    if stale or foreign:
        raise Fenced(f"shards {sorted({*stale, *foreign})} belong to another owner by now")
