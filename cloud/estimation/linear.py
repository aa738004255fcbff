"""The linear Kalman prediction: exact for any gap, intervals discretised once and kept."""

from __future__ import annotations

import numpy as np

from cloud.estimation.algebra import apply, congruence
from cloud.estimation.discretise import Step, discretise
from cloud.twins.model import Floats, Ints, TwinType

_FEW = 16
"""Up to so many rows, looking each one up costs less than sorting them."""
_KEPT = 4096
"""Intervals remembered; when full, all are forgotten (bits do not change: they are made again the same way)."""


class Linear:
    """A type whose Jacobians are constant: dx/dt = F x + B u + c, z = H x + D u + d, one set for each parameter vector.

    The constant c rides along as one more input that is always 1.
    """

    def __init__(self, kind: TwinType) -> None:
        n, k, m = len(kind.states), len(kind.inputs), len(kind.sensors)
        self._kind = kind
        self._Qc = np.diag(np.asarray(kind.process_noise, dtype=np.float64) ** 2)
        self._variant: Ints = np.zeros(0, np.int64)  # (rows,) which parameter vector
        self._variants: dict[bytes, int] = {}
        self._F: Floats = np.zeros((0, n, n))
        self._B: Floats = np.zeros((0, n, k + 1))
        self._H: Floats = np.zeros((0, m, n))
        self._d: Floats = np.zeros((0, m))
        self._D: Floats = np.zeros((0, m, k))
        self._slots: dict[tuple[int, int], int] = {}
        self._steps = Step(np.zeros((_KEPT, n, n)), np.zeros((_KEPT, n, n)), np.zeros((_KEPT, n, k + 1)))

    def enrol(self, row: int, parameters: Floats) -> None:
        if row >= len(self._variant):
            grown = np.zeros(max(16, 2 * row), np.int64)
            grown[: len(self._variant)] = self._variant
            self._variant = grown
        key = np.asarray(parameters, dtype=np.float64).tobytes()
        if key not in self._variants:
            self._variants[key] = len(self._variants)
            self._linearise(np.atleast_2d(np.asarray(parameters, dtype=np.float64)))
        self._variant[row] = self._variants[key]

    def _linearise(self, p: Floats) -> None:
        kind = self._kind
        n, k = len(kind.states), len(kind.inputs)
        x, u = np.zeros((1, n)), np.zeros((1, k))
        drift = kind.rates(x, u, p)[:, :, None]
        self._F = np.concatenate([self._F, kind.rates_jacobian(x, u, p)])
        self._B = np.concatenate([self._B, np.concatenate([kind.input_jacobian(x, u, p), drift], axis=2)])
        self._H = np.concatenate([self._H, kind.measure_jacobian(x, u, p)])
        at_rest = kind.measure(x, u, p)
        self._d = np.concatenate([self._d, at_rest])
        feedthrough = [kind.measure(x, np.eye(k)[j : j + 1], p) - at_rest for j in range(k)]
        stacked = np.stack(feedthrough, axis=2) if k else np.zeros((*at_rest.shape, 0))
        self._D = np.concatenate([self._D, stacked])

    def predict(self, rows: Ints, x: Floats, P: Floats, u: Floats, ticks: Ints) -> tuple[Floats, Floats]:
        slot = self._intervals(self._variant[rows], ticks)
        Phi, Qd, Bd = (part[slot] for part in self._steps)
        drive = apply(Bd[:, :, :-1], u) + Bd[:, :, -1]
        return apply(Phi, x) + drive, congruence(Phi, P) + Qd

    def observe(self, rows: Ints, x: Floats, u: Floats, sensor: Ints) -> tuple[Floats, Floats]:
        variant = self._variant[rows]
        gradient = self._H[variant, sensor]
        expected = self._d[variant, sensor]
        for i in range(x.shape[1]):
            expected = expected + gradient[:, i] * x[:, i]
        for j in range(u.shape[1]):
            expected = expected + self._D[variant, sensor, j] * u[:, j]
        return expected, gradient

    def _intervals(self, variant: Ints, ticks: Ints) -> Ints:
        """Slots (N,) of the steps for these intervals, made now where they are new."""
        if len(ticks) <= _FEW:
            keys, where = list(zip(variant.tolist(), ticks.tolist(), strict=True)), np.arange(len(ticks))
        else:
            gaps, gap = np.unique(ticks, return_inverse=True)
            wanted, where = np.unique(variant * len(gaps) + gap, return_inverse=True)
            keys = list(zip((wanted // len(gaps)).tolist(), gaps[wanted % len(gaps)].tolist(), strict=True))
        missing = list(dict.fromkeys(key for key in keys if key not in self._slots))
        if len(self._slots) + len(missing) > _KEPT:
            self._slots.clear()
            missing = list(dict.fromkeys(keys))
        if missing:
            self._learn(missing)
        slots: Ints = np.array([self._slots[key] for key in keys], np.int64)
        chosen: Ints = slots[where]
        return chosen

    def _learn(self, keys: list[tuple[int, int]]) -> None:
        capacity = len(self._steps.Phi)
        need = len(self._slots) + len(keys)
        if need > capacity:  # more distinct intervals in one batch than are kept
            self._steps = Step(*(np.concatenate([part, np.zeros((need, *part.shape[1:]))]) for part in self._steps))
        v = np.array([key[0] for key in keys], np.int64)
        dt = np.array([key[1] * self._kind.resolution_ns * 1e-9 for key in keys], np.float64)
        Qc = np.broadcast_to(self._Qc, (len(keys), *self._Qc.shape))
        slots = np.arange(len(self._slots), need)
        for part, made in zip(self._steps, discretise(self._F[v], self._B[v], Qc, dt), strict=True):
            part[slots] = made
        self._slots.update(zip(keys, slots.tolist(), strict=True))
