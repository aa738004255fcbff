"""What the API asks of the worker: beliefs, forecasts, figures and presence, all from memory.

Everything is SI and ns UTC; the API turns it into declared units.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from wire.messages import Alive

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Measured:
    """The newest reading of one channel. ``value`` is None while the newest reading is bad or none has come.

    ``fused`` is false for a live value that has overtaken a backlog on the ``latest`` topic.
    """

    time: int
    value: float | None
    quality: int
    fused: bool = True


@dataclass(frozen=True, eq=False)
class Belief:
    """What one twin believes at ``at``: mean (n,) and sigma (n,) predicted from its newest event, at ``time``.

    ``nis`` is the windowed mean of the normalised innovation squared per degree of freedom, NaN before the first
    update; ``nis_band`` is its 99.9 % band for a consistent filter. The totals count since the beginning: ``updates``
    scored samples with ``nis_total`` their summed NIS, ``gated`` of them kept out, ``resets`` recoveries.
    """

    at: int
    time: int
    mean: Floats
    sigma: Floats
    measured: Mapping[str, Measured] = field(default_factory=dict)
    nis: float = float("nan")
    nis_band: tuple[float, float] = (0.0, float("inf"))
    nis_total: float = 0.0
    updates: int = 0
    gated: int = 0
    resets: int = 0


@dataclass(frozen=True, slots=True)
class Figures:
    """Counts since the beginning (they survive restarts) and the latency edge stamp -> committed estimate.

    ``applied`` counts distinct readings committed; ``duplicates`` those that came again and were dropped; ``outcomes``
    splits by fate (fused, late, bad, filtered, gap, ahead, duplicate, unbound ...).
    """

    applied: int
    duplicates: int
    outcomes: Mapping[str, int]
    latency_p50_ms: float | None
    latency_p99_ms: float | None


@dataclass(frozen=True, slots=True)
class Presence:
    """The newest Alive of one edge or gateway, and when it was received."""

    alive: Alive
    received: int


class LiveView(Protocol):
    """The worker, as the API sees it."""

    def beliefs(self, twins: Sequence[str], at: int) -> Mapping[str, Belief]:
        """Beliefs at one time; a twin that has not started yet is missing."""
        ...

    def forecast(self, twin: str, times: Ints) -> tuple[Floats, Floats]:
        """Mean (T, n) and sigma (T, n) at the given times, inputs held; raises Rejected("no-estimate")."""
        ...

    def figures(self) -> Figures:
        """Counts and latency."""
        ...

    def presence(self) -> Sequence[Presence]:
        """Every edge and gateway heard of."""
        ...
