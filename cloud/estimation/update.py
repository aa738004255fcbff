"""The scalar measurement update with its gate, and the way back for a filter that has lost its sensor.

One row is one sample of one sensor. v = z - z_expected, S = h^T P h + r, NIS = v^2 / S. A sample whose NIS exceeds
the gate's chi-square quantile is kept out. Five gated samples in a row that agree with each other are no outliers:
the covariance of the measured states is then raised until NIS = 1, and the sample is taken. Rejections alone never
inflate P.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from cloud.estimation.algebra import apply, dot, outer, symmetric
from cloud.estimation.state import Bools
from cloud.twins.model import Floats, Ints

STREAK = 5
"""Agreeing gated samples after which the world is believed, not the filter."""


class Scored(NamedTuple):
    """What one update says about itself, by row. ``nis`` is capped at the gate."""

    nis: Floats
    gated: Bools
    reset: Bools
    innovation: Floats


class Posterior(NamedTuple):
    """The updated parts of a state, and the score."""

    x: Floats
    P: Floats
    streak: Ints
    shift: Floats
    scored: Scored


def update(
    x: Floats, P: Floats, innovation: Floats, h: Floats, r: Floats, gate: Floats, streak: Ints, shift: Floats
) -> Posterior:
    """x (N, n), P (N, n, n), h (N, n) the sensor's gradient, r (N,) its variance, gate (N,) a bound on NIS.

    ``streak`` and ``shift`` (N,) are the sensor's gated samples so far: how many agree, and their mean innovation.
    """
    Ph = apply(P, h)
    S = dot(h, Ph) + r
    nis = innovation**2 / S
    out = ~(nis <= gate)
    agrees = (streak > 0) & ((innovation - shift) ** 2 <= gate * S * (1.0 + 1.0 / np.maximum(streak, 1)))
    streak = np.where(out, np.where(agrees, streak + 1, 1), 0)
    shift = np.where(out, np.where(agrees, shift + (innovation - shift) / np.maximum(streak, 1), innovation), 0.0)
    reset = streak >= STREAK
    if reset.any():
        at = np.flatnonzero(reset)
        P = P.copy()
        P[at] = _reopened(P[at], innovation[at], h[at], r[at])
        Ph = apply(P, h)
        S = dot(h, Ph) + r
        streak, shift = np.where(reset, 0, streak), np.where(reset, 0.0, shift)
    closed = out & ~reset
    K = np.where(closed[:, None], 0.0, Ph / S[:, None])
    v = np.where(closed, 0.0, innovation)
    scored = Scored(np.minimum(nis, gate), closed, reset, innovation)
    return Posterior(x + K * v[:, None], _joseph(P, K, Ph, h, r), streak, shift, scored)


def _joseph(P: Floats, K: Floats, Ph: Floats, h: Floats, r: Floats) -> Floats:
    """(I - K h^T) P (I - K h^T)^T + K r K^T by rank-one steps; right for any gain, also for 0."""
    left = P - outer(K, Ph)
    return symmetric(left - outer(apply(left, h) - r[:, None] * K, K))


def _reopened(P: Floats, innovation: Floats, h: Floats, r: Floats) -> Floats:
    """P with the variances of the measured states raised in proportion until v^2 = h^T P h + r."""
    n = P.shape[1]
    on_diagonal = np.arange(n)
    measured = h != 0.0
    share = np.where(measured, P[:, on_diagonal, on_diagonal], 0.0)
    share = np.where(measured & (share <= 0.0), np.finfo(np.float64).tiny, share)
    reach = dot(h * h, share)
    lack = np.maximum(innovation**2 - dot(h, apply(P, h)) - r, 0.0)
    raised = P.copy()
    with np.errstate(divide="ignore", invalid="ignore"):
        factor = np.where(reach > 0.0, lack / reach, 0.0)
    raised[:, on_diagonal, on_diagonal] += np.where(np.isfinite(factor), factor, 0.0)[:, None] * share
    return raised
