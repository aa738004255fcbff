"""Exact discretisation of a linear model over any interval (Van Loan 1978, by scaling and doubling).

dx/dt = F x + B u + w, with w white of spectral density Qc. Over dt: x' = Phi x + Bd u + w', cov(w') = Qd.
Van Loan's block exponential needs exp(-F dt) and breaks down for a fast pole and a long gap; doubling from a short
step does not (0.1 ms to months).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from cloud.estimation.algebra import congruence, eye, product, symmetric
from cloud.twins.model import Floats

_SHORT = 0.25
"""Largest |F| h of the power series; with |F| h <= 1/4 its 16 terms reach below 1e-18."""
_TERMS = 16
_MOST_DOUBLINGS = 200


class Step(NamedTuple):
    """One interval: Phi (S, n, n), Qd (S, n, n), Bd (S, n, k)."""

    Phi: Floats
    Qd: Floats
    Bd: Floats


def discretise(F: Floats, B: Floats, Qc: Floats, dt: Floats) -> Step:
    """F (S, n, n), B (S, n, k), Qc (S, n, n), dt (S,) seconds >= 0, one interval a row; rows never meet."""
    if (dt < 0).any():
        raise ValueError("a negative interval is not a prediction")
    size = np.abs(F).sum(axis=2).max(axis=1) * dt
    doublings = np.zeros(len(dt), dtype=np.int64)
    while (size > _SHORT).any() and doublings.max(initial=0) < _MOST_DOUBLINGS:
        long = size > _SHORT
        doublings[long] += 1
        size[long] *= 0.5
    Phi, Qd, Bd = _series(F, B, Qc, np.ldexp(dt, -doublings))
    for k in range(int(doublings.max(initial=0))):
        go = np.flatnonzero(doublings > k)
        half, noise, drive = Phi[go], Qd[go], Bd[go]
        Qd[go] = noise + congruence(half, noise)
        Bd[go] = drive + product(half, drive)
        Phi[go] = product(half, half)
    return Step(Phi, Qd, Bd)


def _series(F: Floats, B: Floats, Qc: Floats, h: Floats) -> Step:
    """Taylor series of Phi = exp(F h), Bd = int exp(F s) B ds and Qd = int exp(F s) Qc exp(F s)^T ds over 0..h."""
    h = h[:, None, None]
    power = eye(*F.shape[:2])  # F^j h^j / j!
    drive = B * h  # F^(j-1) B h^j / j!
    noise = Qc * h  # L^(j-1)(Qc) h^j / j!, L(X) = F X + X F^T
    Phi, Bd, Qd = power.copy(), drive.copy(), noise.copy()
    for j in range(1, _TERMS):
        power = product(F, power) * (h / j)
        Phi += power
        if B.shape[2]:
            drive = product(F, drive) * (h / (j + 1))
            Bd += drive
        noise = symmetric(product(F, noise)) * (2.0 * h / (j + 1))
        Qd += noise
    return Step(Phi, Qd, Bd)
