"""Counts and latency: they are saved with the checkpoint, so each reading is counted once whatever was killed."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from cloud.history.base import Ints
from wire.errors import BadData

PER_DECADE = 50
"""Buckets are 4.7 % wide, and so is the error of a percentile."""
DECADES = 8
FIRST_MS = 0.1


@dataclass(slots=True)
class Latency:
    """A histogram of milliseconds, from 0.1 ms to nearly three hours on a logarithmic scale."""

    counts: Ints = field(default_factory=lambda: np.zeros(PER_DECADE * DECADES, dtype=np.int64))

    def add(self, milliseconds: np.ndarray[tuple[int], np.dtype[np.float64]]) -> None:
        """Count one batch; a negative latency (clocks disagree) counts as the smallest."""
        decades = np.log10(np.maximum(milliseconds, FIRST_MS) / FIRST_MS)
        buckets = np.minimum((decades * PER_DECADE).astype(np.int64), len(self.counts) - 1)
        self.counts += np.bincount(buckets, minlength=len(self.counts))

    def percentile(self, share: float) -> float | None:
        """The latency in ms that this share of the readings stays below; None before the first reading."""
        total = int(self.counts.sum())
        if total == 0:
            return None
        bucket = int(np.searchsorted(np.cumsum(self.counts), math.ceil(share * total)))
        return float(FIRST_MS * 10 ** ((bucket + 0.5) / PER_DECADE))


@dataclass(slots=True)
class Tally:
    """What became of every reading since the beginning."""

    stored: int = 0
    """Rows written to the history, repeats of a reading included."""
    outcomes: Counter[str] = field(default_factory=Counter)
    latency: Latency = field(default_factory=Latency)

    def pack(self) -> bytes:
        """As JSON; the histogram by its filled buckets."""
        filled = {str(bucket): int(self.latency.counts[bucket]) for bucket in np.flatnonzero(self.latency.counts)}
        return json.dumps({"stored": self.stored, "outcomes": self.outcomes, "latency": filled}).encode()

    def restore(self, blob: bytes) -> None:
        """Go on counting from what was packed; raises BadData("checkpoint") for a damaged blob."""
        try:
            saved = json.loads(blob)
            self.stored = int(saved["stored"])
            self.outcomes.update({str(fate): int(count) for fate, count in saved["outcomes"].items()})
            for bucket, count in saved["latency"].items():
                self.latency.counts[int(bucket)] = int(count)
        except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
            raise BadData("checkpoint", f"the counts cannot be read: {error!r}") from error
