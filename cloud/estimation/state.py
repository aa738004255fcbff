"""Everything a filter remembers about its twins, as stacked arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cloud.twins.model import Floats, Ints, TwinType

Bools = npt.NDArray[np.bool_]
Index = npt.NDArray[np.int64] | slice | tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]


@dataclass
class State:
    """N filters with n states, k inputs and m sensors; leading axes may be more than one (anchors).

    ``seen``: the sensor has spoken. ``streak`` consecutive gated samples of a sensor agreed with each other, with
    mean innovation ``shift``. The totals belong to the state so that a rewind takes back what it replays.
    """

    x: Floats
    """(N, n)"""
    P: Floats
    """(N, n, n)"""
    u: Floats
    """(N, k) inputs as held now"""
    time: Ints
    """(N,) ns of the last event"""
    started: Bools
    seen: Bools
    """(N, m)"""
    streak: Ints
    """(N, m)"""
    shift: Floats
    """(N, m)"""
    nis_total: Floats
    updates: Ints
    gated: Ints
    resets: Ints

    @classmethod
    def prior(cls, kind: TwinType, *lead: int) -> State:
        """States at the type's prior, not started."""
        m = len(kind.sensors)
        mean = np.array([state.initial for state in kind.states], dtype=np.float64)
        sigma = np.array([state.sigma for state in kind.states], dtype=np.float64)
        held = np.array([item.initial for item in kind.inputs], dtype=np.float64)
        return cls(
            x=_tile(mean, lead),
            P=_tile(np.diag(sigma**2), lead),
            u=_tile(held, lead),
            time=np.zeros(lead, np.int64),
            started=np.zeros(lead, np.bool_),
            seen=np.zeros((*lead, m), np.bool_),
            streak=np.zeros((*lead, m), np.int64),
            shift=np.zeros((*lead, m)),
            nis_total=np.zeros(lead),
            updates=np.zeros(lead, np.int64),
            gated=np.zeros(lead, np.int64),
            resets=np.zeros(lead, np.int64),
        )

    @property
    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The arrays by name, for packing."""
        return vars(self)

    def take(self, index: Index) -> State:
        """The chosen rows: a view for a slice, a copy for indices."""
        return State(**{name: array[index] for name, array in self.arrays.items()})

    def put(self, index: Index, other: State) -> None:
        """Overwrite the chosen rows."""
        for name, array in self.arrays.items():
            array[index] = getattr(other, name)


def _tile(value: Floats, lead: tuple[int, ...]) -> Floats:
    return np.broadcast_to(value, (*lead, *value.shape)).copy()
