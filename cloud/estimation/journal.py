"""What to save of a cohort, and how to continue from it.

Twins are kept in *blocks* of up to 256. A block's *base* holds its twins whole: states, rings and anchors. A *delta*
holds the events taken since, in order of arrival; fusing them again gives the same bits, because nothing depends on
batch borders. Deltas are a few bytes an event and are written at every commit; when they outgrow the base, a new base
with the next *generation* is written and the old deltas' keys are cleared.

Keys: ``twins/TYPE_HASH/BLOCK/base`` and ``twins/TYPE_HASH/BLOCK/delta-NUMBER``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from cloud.estimation.blobs import KERNEL, Blob, decode, encode
from cloud.estimation.cohort import TAKEN, Cohort, Produced
from cloud.estimation.image import delta, events_of, put_back, whole
from cloud.estimation.ring import Slots
from cloud.twins.model import Ints
from wire.errors import BadData

SIZE = 256
_SMALL = 64 * 1024
_HELD = 100_000
"""Events kept for the next delta; a block with more is saved whole instead."""


@dataclass
class _Block:
    """One block as the store has it. ``size`` is the base's, ``written`` all deltas'.

    ``whole``: a base is due, and is offered at every pack until one is saved; ``current``: the offered one will do.
    ``pending`` are the batches taken since the last save, the first ``offered`` of them covered by the last pack.
    ``stale`` are keys that the next base makes useless.
    """

    rows: list[int] = field(default_factory=list)
    generation: int = 0
    deltas: int = 0
    size: int = 0
    written: int = 0
    whole: bool = True
    current: bool = False
    pending: list[tuple[Ints, Slots]] = field(default_factory=list)
    events: int = 0
    offered: int = 0
    stale: list[str] = field(default_factory=list)

    def outdate(self) -> None:
        """What the store has, or has been offered, can no longer be built upon."""
        self.whole, self.current = True, False


class Journal:
    """The blocks of one cohort."""

    def __init__(self, cohort: Cohort) -> None:
        self._cohort = cohort
        self._prefix = f"twins/{cohort.kind.hash}/"
        self._blocks: list[_Block] = []
        self._block: Ints = np.zeros(0, np.int64)  # by row
        self._offer: dict[int, tuple[bool, int]] = {}  # block -> (whole, bytes)

    def enrol(self, row: int) -> None:
        """A row is in use from now on."""
        number = next((i for i, block in enumerate(self._blocks) if len(block.rows) < SIZE), len(self._blocks))
        if number == len(self._blocks):
            self._blocks.append(_Block())
        self._blocks[number].rows.append(row)
        if row >= len(self._block):
            self._block = np.concatenate([self._block, np.full(row + 1 - len(self._block), -1, np.int64)])
        self._block[row] = number

    def leave(self, row: int) -> None:
        """A row is free; its block must be saved whole, or the twin would come back."""
        block = self._blocks[self._block[row]]
        block.rows.remove(row)
        block.outdate()
        block.pending = [(rows[rows != row], slots.take(rows != row)) for rows, slots in block.pending]

    def note(self, rows: Ints, events: Slots) -> None:
        """Events that were taken, in order of arrival."""
        owner = self._block[rows]
        for number in np.unique(owner).tolist():
            block, mine = self._blocks[number], owner == number
            block.events += int(np.count_nonzero(mine))
            if block.events > _HELD:
                block.outdate()
                block.pending, block.events, block.offered = [], 0, 0
            else:
                block.pending.append((rows[mine], events.take(mine)))

    def pack(self) -> dict[str, bytes]:
        """Blobs for everything since the last `saved`."""
        blobs: dict[str, bytes] = {}
        self._offer = {}
        grown = [b for b in self._blocks if b.pending and b.written >= max(b.size, _SMALL)]
        if grown:  # at most one a commit, the rest wait their turn
            max(grown, key=lambda block: block.written / max(block.size, _SMALL)).whole = True
        for number, block in enumerate(self._blocks):
            before = sum(map(len, blobs.values()))
            if block.whole:
                blobs |= dict.fromkeys(block.stale, b"")
                blobs |= {self._delta(number, i): b"" for i in range(block.deltas)}
                blobs[self._key(number, "base")] = encode(self._base(block))
                block.current = True
            elif block.pending:
                blobs[self._delta(number, block.deltas)] = encode(self._events(block))
            else:
                continue
            block.offered = len(block.pending)
            self._offer[number] = (block.whole, sum(map(len, blobs.values())) - before)
        return blobs

    def saved(self) -> None:
        """The store has what the last `pack` gave."""
        for number, (all_of_it, size) in self._offer.items():
            block = self._blocks[number]
            if all_of_it:
                block.generation += 1
                block.deltas = block.written = 0
                block.size, block.whole, block.stale = size, not block.current, []
            else:
                block.deltas += 1
                block.written += size
            block.pending = block.pending[block.offered :]
            block.events = sum(len(rows) for rows, _ in block.pending)
        self._offer = {}

    def restore(self, blobs: Mapping[str, bytes]) -> list[str]:
        """Take over what the store has (this cohort's keys only); the twins are enrolled and have seen nothing yet.

        Returns the names of packed twins that are not enrolled.
        """
        homeless = [row for block in self._blocks for row in block.rows]
        self._blocks, self._block[:] = [], -1
        rows = {name: row for row, name in enumerate(self._cohort.names) if name is not None}
        gone: list[str] = []
        taken: list[tuple[Ints, Slots]] = []
        for number in range(1 + max((int(key[len(self._prefix) :].split("/")[0]) for key in blobs), default=-1)):
            start = self._key(number, "")
            mine = {key: data for key, data in sorted(blobs.items()) if key.startswith(start) and data}
            self._blocks.append(_Block())
            gone += self._revive(number, mine, rows, taken)
        self._replay(taken)
        for row in homeless:
            if self._block[row] < 0:
                self.enrol(row)
        return gone

    def _revive(
        self, number: int, blobs: dict[str, bytes], rows: Mapping[str, int], taken: list[tuple[Ints, Slots]]
    ) -> list[str]:
        """One block: its base is put back, its deltas' events go to ``taken``."""
        block = self._blocks[number]
        data = blobs.pop(self._key(number, "base"), None)
        if data is None:
            block.stale = list(blobs)
            return []
        base = decode(data)
        block.generation, block.size = int(base.facts["generation"]), len(data)
        known = set(self._settle(number, base, rows))
        put_back(self._cohort, base, rows)
        gone = set(base.facts["names"]) - rows.keys()
        for key, data in blobs.items():
            delta = decode(data)
            if delta.facts["generation"] != block.generation:
                block.stale.append(key)
                continue
            if key != self._delta(number, block.deltas):
                raise BadData("checkpoint", f"{key} follows a delta that is missing")
            known |= set(self._settle(number, delta, rows))
            gone |= set(delta.facts["names"]) - rows.keys()
            taken.append(events_of(delta, rows))
            block.deltas, block.written = block.deltas + 1, block.written + len(data)
        block.rows = sorted(known)
        block.whole = bool(gone) or base.facts["kernel"] != KERNEL
        return sorted(gone)

    def _settle(self, number: int, blob: Blob, rows: Mapping[str, int]) -> list[int]:
        mine = [rows[name] for name in blob.facts["names"] if name in rows]
        self._block[mine] = number
        return mine

    def _replay(self, taken: list[tuple[Ints, Slots]]) -> None:
        if not taken:
            return
        row = np.concatenate([rows for rows, _ in taken])
        events = Slots.join(events for _, events in taken)
        if (self._cohort.step(row, events, Produced()) != TAKEN).any():
            raise BadData("checkpoint", "a delta does not follow its base")

    def _base(self, block: _Block) -> Blob:
        blob = whole(self._cohort, block.rows)
        return Blob({"generation": block.generation + 1, **blob.facts}, blob.arrays)

    def _events(self, block: _Block) -> Blob:
        blob = delta(self._cohort, block.pending)
        return Blob({"generation": block.generation, **blob.facts}, blob.arrays)

    def _key(self, number: int, name: str) -> str:
        return f"{self._prefix}{number:04d}/{name}"

    def _delta(self, number: int, delta: int) -> str:
        return self._key(number, f"delta-{delta:05d}")
