"""Exact discretisation against closed forms, the semigroup law and scipy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import expm, solve_continuous_lyapunov

from cloud.estimation.discretise import Step, discretise
from cloud.twins.model import Floats


def one(F: object, Q: object, dt: float, B: object = None) -> Step:
    f = np.array(F, dtype=float)[None]
    b = np.zeros((1, f.shape[1], 0)) if B is None else np.array(B, dtype=float)[None]
    made = discretise(f, b, np.array(Q, dtype=float)[None], np.array([dt]))
    return Step(made.Phi[0], made.Qd[0], made.Bd[0])


def test_brown_and_hwang_oscillator() -> None:
    made = one([[0, 1], [-1, 0]], [[0, 0], [0, 4]], 0.1)
    assert made.Phi == pytest.approx(np.array([[0.99500417, 0.09983342], [-0.09983342, 0.99500417]]), abs=1e-8)
    assert made.Qd == pytest.approx(np.array([[0.00133067, 0.01993342], [0.01993342, 0.39866933]]), abs=1e-8)


def test_double_integrator_in_closed_form() -> None:
    for dt in (1e-6, 0.1, 7.0, 1e6):
        made = one([[0, 1], [0, 0]], [[0, 0], [0, 1]], dt, [[0], [1]])
        assert made.Qd == pytest.approx(np.array([[dt**3 / 3, dt**2 / 2], [dt**2 / 2, dt]]), rel=1e-12)
        assert made.Bd[:, 0] == pytest.approx(np.array([dt**2 / 2, dt]), rel=1e-12)


def test_fast_and_slow_poles_over_any_gap() -> None:
    """Where Van Loan's block exponential returns 1.7e7 for 0.05 (poles -10 and -0.01, 3 s)."""
    F, Q = np.array([[-10.0, 1.0], [0.0, -0.01]]), np.diag([1.0, 1e-6])
    rest = solve_continuous_lyapunov(F, -Q)
    for dt in (0.001, 2.0, 3.0, 10.0, 100.0, 1e6):
        made = one(F, Q, dt)
        Phi = expm(F * dt)
        assert made.Phi == pytest.approx(Phi, rel=1e-11, abs=1e-13)
        assert made.Qd == pytest.approx(rest - Phi @ rest @ Phi.T, rel=1e-9, abs=1e-13)


matrices = st.lists(st.floats(-3, 3), min_size=9, max_size=9).map(lambda v: np.array(v).reshape(3, 3))


@settings(max_examples=60, deadline=None)
@given(matrices, st.floats(0.001, 3.0), st.floats(0.001, 3.0))
def test_two_intervals_are_one(F: Floats, a: float, b: float) -> None:
    Q, B = np.diag([1.0, 0.3, 0.0]), np.array([[1.0], [0.0], [2.0]])
    both, first, second = one(F, Q, a + b, B), one(F, Q, a, B), one(F, Q, b, B)
    scale = max(np.abs(both.Qd).max(), np.abs(both.Bd).max(), np.abs(both.Phi).max())
    assert np.abs(second.Phi @ first.Phi - both.Phi).max() <= 1e-12 * scale * 10
    assert np.abs(second.Phi @ first.Qd @ second.Phi.T + second.Qd - both.Qd).max() <= 1e-12 * scale * 10
    assert np.abs(second.Phi @ first.Bd + second.Bd - both.Bd).max() <= 1e-12 * scale * 10


def test_a_row_does_not_depend_on_its_neighbours() -> None:
    rng = np.random.default_rng(2)
    F, B, Q = rng.normal(size=(40, 4, 4)), rng.normal(size=(40, 4, 2)), np.broadcast_to(np.eye(4), (40, 4, 4))
    dt = 10.0 ** rng.uniform(-4, 1, 40)
    together = discretise(F, B, Q, dt)
    for i in range(40):
        alone = discretise(F[i : i + 1], B[i : i + 1], Q[i : i + 1], dt[i : i + 1])
        for whole, single in zip(together, alone, strict=True):
            assert whole[i].tobytes() == single[0].tobytes()


def test_nothing_happens_in_no_time_and_time_never_runs_back() -> None:
    made = one([[-1.0]], [[1.0]], 0.0)
    assert made.Phi[0, 0] == 1.0 and made.Qd[0, 0] == 0.0
    with pytest.raises(ValueError, match="negative"):
        one([[-1.0]], [[1.0]], -0.1)
