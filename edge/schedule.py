"""When to poll: on a fixed grid of the monotonic clock, staggered, never twice at once and never to catch up."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(slots=True)
class Schedule:
    """A grid of instants ``first + k * period_s``; all times in seconds of one monotonic clock."""

    first: float
    period_s: float
    missed: int = 0
    """Instants that passed while the poll before them was still running."""
    _last: int = -1

    @classmethod
    def staggered(cls, start: float, period_s: float, index: int, count: int) -> Schedule:
        """The schedule of the ``index``-th of ``count`` devices: starts spread evenly over one period."""
        return cls(start + period_s * index / count, period_s)

    def next(self, now: float) -> float:
        """The next instant to poll at; what lies in the past is skipped and counted, except the newest of it."""
        newest_past = math.floor((now - self.first) / self.period_s)
        following = max(self._last + 1, newest_past)
        self.missed += following - self._last - 1
        self._last = following
        return self.first + following * self.period_s
