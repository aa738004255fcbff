"""The extended Kalman prediction: the mean by Runge-Kutta, the covariance by the variational equation.

A row takes its own number of sub-steps, from its own Jacobian in units of the states' prior sigmas, so its bits do
not depend on its neighbours.
"""

from __future__ import annotations

import numpy as np

from cloud.estimation.algebra import congruence, eye, product
from cloud.twins.model import Floats, Ints, TwinType

_REACH = 0.2
"""Largest scaled |J| h of one sub-step: the local error of the mean is then below 3e-6 of a sigma."""
_MOST_STEPS = 512
"""Sub-steps a gap may take; longer gaps of fast systems take larger ones."""


class Nonlinear:
    """Any type, linearised where it is."""

    def __init__(self, kind: TwinType) -> None:
        self._kind = kind
        self._Qc = np.diag(np.asarray(kind.process_noise, dtype=np.float64) ** 2)[None]
        sigma = np.array([state.sigma for state in kind.states], dtype=np.float64)
        sigma[~(np.isfinite(sigma) & (sigma > 0.0))] = 1.0
        self._scale = sigma[None, None, :] / sigma[None, :, None]
        self._p: Floats = np.zeros((0, len(kind.parameters)))

    def enrol(self, row: int, parameters: Floats) -> None:
        if row >= len(self._p):
            grown = np.zeros((max(16, 2 * row), self._p.shape[1]))
            grown[: len(self._p)] = self._p
            self._p = grown
        self._p[row] = parameters

    def predict(self, rows: Ints, x: Floats, P: Floats, u: Floats, ticks: Ints) -> tuple[Floats, Floats]:
        x, P, p = x.copy(), P.copy(), self._p[rows]
        remaining = ticks * (self._kind.resolution_ns * 1e-9)
        least = remaining / _MOST_STEPS
        J = self._kind.rates_jacobian(x, u, p)
        while (go := np.flatnonzero(remaining > 0.0)).size:
            size = np.abs(J[go] * self._scale).sum(axis=2).max(axis=1)
            with np.errstate(divide="ignore"):
                h = np.minimum(remaining[go], np.maximum(_REACH / size, least[go]))
            h = np.where(np.isfinite(h), h, remaining[go])  # a diverged row is carried to its end and then restarted
            x[go], P[go], J[go] = self._substep(x[go], P[go], u[go], p[go], J[go], h)
            remaining[go] -= h
        return x, P

    def _substep(
        self, x: Floats, P: Floats, u: Floats, p: Floats, J0: Floats, h: Floats
    ) -> tuple[Floats, Floats, Floats]:
        """One step of h (N,) seconds from x with Jacobian J0; also returns the Jacobian at its end.

        Phi solves dPhi/dt = J Phi by Runge-Kutta along the mean; Qd is Simpson's rule on Phi(h, s) Qc Phi(h, s)^T,
        a sum of positive terms.
        """
        rates, jacobian = self._kind.rates, self._kind.rates_jacobian
        H, G = h[:, None], h[:, None, None]
        k1 = rates(x, u, p)
        k2 = rates(x + 0.5 * H * k1, u, p)
        k3 = rates(x + 0.5 * H * k2, u, p)
        k4 = rates(x + H * k3, u, p)
        end = x + H / 6.0 * (k1 + 2.0 * k2 + 2.0 * k3 + k4)
        J1, J2 = jacobian(x + 0.5 * H * k2, u, p), jacobian(end, u, p)
        one = eye(*J0.shape[:2])
        d2 = product(J1, one + 0.5 * G * J0)
        d3 = product(J1, one + 0.5 * G * d2)
        d4 = product(J2, one + G * d3)
        Phi = one + G / 6.0 * (J0 + 2.0 * d2 + 2.0 * d3 + d4)
        A = 0.25 * G * (J1 + J2)  # second half of the step
        half = one + product(A, one + product(A, one * 0.5 + A / 6.0))
        Qd = G / 6.0 * (congruence(Phi, self._Qc) + 4.0 * congruence(half, self._Qc) + self._Qc)
        return end, congruence(Phi, P) + Qd, J2

    def observe(self, rows: Ints, x: Floats, u: Floats, sensor: Ints) -> tuple[Floats, Floats]:
        p, row = self._p[rows], np.arange(len(rows))
        return self._kind.measure(x, u, p)[row, sensor], self._kind.measure_jacobian(x, u, p)[row, sensor]
