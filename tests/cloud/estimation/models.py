"""Twin types written by hand, straight from their books, for the estimation tests."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cloud.twins.model import Floats, InputDef, ParameterDef, SensorDef, StateDef, Twin, TwinType
from wire.units import parse_unit

ONE = parse_unit("1")
MS = 1_000_000
SECOND = 1_000_000_000


def linear(
    F: Sequence[Sequence[float]],
    H: Sequence[Sequence[float]],
    q: Sequence[float],
    noise: Sequence[float],
    *,
    sigma: Sequence[float],
    initial: Sequence[float] | None = None,
    B: Sequence[Sequence[float]] | None = None,
    initial_from: Sequence[str | None] | None = None,
    gate: float = 1.0,
    horizon_s: float = 60.0,
    low: float = -np.inf,
    is_linear: bool = True,
    name: str = "lin",
) -> TwinType:
    """dx/dt = F x + B u + w, sensors s0.. = H x + v, states x0.., inputs u0.."""
    f, h = np.array(F, dtype=float), np.array(H, dtype=float)
    n, m = len(f), len(h)
    b = np.array(B, dtype=float) if B is not None else np.zeros((n, 0))
    k = b.shape[1]

    def rates(x: Floats, u: Floats, p: Floats) -> Floats:
        total = np.zeros_like(x)
        for i in range(n):
            for j in range(n):
                total[:, i] += f[i, j] * x[:, j]
            for j in range(k):
                total[:, i] += b[i, j] * u[:, j]
        return total

    def measure(x: Floats, u: Floats, p: Floats) -> Floats:
        total = np.zeros((len(x), m))
        for i in range(m):
            for j in range(n):
                total[:, i] += h[i, j] * x[:, j]
        return total

    return TwinType(
        name=name, version="1.0.0", hash=f"{name}-{n}-{k}-{m}-{is_linear}", resolution_ns=MS,
        horizon_ns=int(horizon_s * 1e9), tick_ns=SECOND, linear=is_linear,
        states=tuple(
            StateDef(f"x{i}", ONE, (initial or [0.0] * n)[i], sigma[i], (initial_from or [None] * n)[i], low=low)
            for i in range(n)
        ),
        parameters=(),
        inputs=tuple(InputDef(f"u{j}", ONE, 0.0) for j in range(k)),
        sensors=tuple(SensorDef(f"s{i}", ONE, noise[i], gate=gate) for i in range(m)),
        actuators=(),
        process_noise=np.array(q, dtype=float),
        rates=rates,
        rates_jacobian=lambda x, u, p: np.broadcast_to(f, (len(x), n, n)).copy(),
        input_jacobian=lambda x, u, p: np.broadcast_to(b, (len(x), n, k)).copy(),
        measure=measure,
        measure_jacobian=lambda x, u, p: np.broadcast_to(h, (len(x), m, n)).copy(),
    )  # fmt: skip


def level(q: float = 0.1, r: float = 1.0, **more: object) -> TwinType:
    """A random walk, watched."""
    return linear([[0.0]], [[1.0]], [q], [r], sigma=[10.0], name="level", **more)  # type: ignore[arg-type]


def trend(q: float = 0.1, r: float = 1.0, **more: object) -> TwinType:
    """Constant velocity with white acceleration."""
    return linear([[0.0, 1.0], [0.0, 0.0]], [[1.0, 0.0]], [0.0, q], [r], sigma=[10.0, 3.0], name="trend", **more)  # type: ignore[arg-type]


def driven(**more: object) -> TwinType:
    """Two lags in a row, two inputs, both lags watched."""
    return linear(
        [[-0.5, 0.2], [0.3, -0.1]], [[1.0, 0.0], [0.0, 1.0]], [0.05, 0.02], [0.3, 0.5],
        sigma=[4.0, 4.0], B=[[1.0, 0.0], [0.0, 0.5]], name="driven", **more,  # type: ignore[arg-type]
    )  # fmt: skip


G = 9.81


def tank(q_scale: float = 1.0, gate: float = 0.999) -> TwinType:
    """The quadruple tank (Johansson 2000) in SI, with two inflow offsets; h3 and h4 are not measured.

    Parameters: outflow areas a1..a4 (m^2).
    """
    A = np.array([28e-4, 32e-4, 28e-4, 32e-4])
    k = np.array([3.33e-6, 3.35e-6])
    g1, g2 = 0.70, 0.60
    root = np.sqrt(2.0 * G)

    def rates(x: Floats, u: Floats, p: Floats) -> Floats:
        out = [p[:, i] * root * np.sqrt(np.maximum(x[:, i], 0.0)) for i in range(4)]
        v1, v2 = k[0] * u[:, 0], k[1] * u[:, 1]
        rate = np.zeros_like(x)
        rate[:, 0] = (-out[0] + out[2] + g1 * v1) / A[0] + x[:, 4]
        rate[:, 1] = (-out[1] + out[3] + g2 * v2) / A[1] + x[:, 5]
        rate[:, 2] = (-out[2] + (1 - g2) * v2) / A[2]
        rate[:, 3] = (-out[3] + (1 - g1) * v1) / A[3]
        return rate

    def rates_jacobian(x: Floats, u: Floats, p: Floats) -> Floats:
        J = np.zeros((len(x), 6, 6))
        for i in range(4):
            slope = p[:, i] * root * 0.5 / np.sqrt(np.maximum(x[:, i], 1e-6)) * (x[:, i] > 0.0)
            J[:, i, i] = -slope / A[i]
            if i >= 2:
                J[:, i - 2, i] = slope / A[i - 2]
        J[:, 0, 4] = J[:, 1, 5] = 1.0
        return J

    def input_jacobian(x: Floats, u: Floats, p: Floats) -> Floats:
        J = np.zeros((len(x), 6, 2))
        J[:, 0, 0], J[:, 1, 1] = g1 * k[0] / A[0], g2 * k[1] / A[1]
        J[:, 2, 1], J[:, 3, 0] = (1 - g2) * k[1] / A[2], (1 - g1) * k[0] / A[3]
        return J

    H = np.eye(6)[:2]
    levels = {"h1": 0.124, "h2": 0.127, "h3": 0.018, "h4": 0.014}
    return TwinType(
        name="tank", version="1.0.0", hash=f"tank-{q_scale}-{gate}", resolution_ns=MS, horizon_ns=60 * SECOND,
        tick_ns=SECOND, linear=False,
        states=(
            *(StateDef(n, ONE, start, 0.01 if start > 0.1 else 0.003, low=0.0) for n, start in levels.items()),
            *(StateDef(n, ONE, 0.0, 2e-5, disturbance=True) for n in ("d1", "d2")),
        ),
        parameters=tuple(ParameterDef(f"a{i + 1}", ONE, a) for i, a in enumerate((7.1e-6, 5.7e-6, 7.1e-6, 5.7e-6))),
        inputs=(InputDef("v1", ONE, 3.0), InputDef("v2", ONE, 3.0)),
        sensors=(SensorDef("h1", ONE, 0.003, gate=gate), SensorDef("h2", ONE, 0.003, gate=gate)),
        actuators=(),
        process_noise=np.array([5e-5, 5e-5, 1e-4, 1e-4, 2e-7, 2e-7]) * np.sqrt(q_scale),
        rates=rates, rates_jacobian=rates_jacobian, input_jacobian=input_jacobian,
        measure=lambda x, u, p: np.ascontiguousarray(x[:, :2]),
        measure_jacobian=lambda x, u, p: np.broadcast_to(H, (len(x), 2, 6)).copy(),
    )  # fmt: skip


def twin(kind: TwinType, name: str = "twin-1", parameters: Sequence[float] | None = None) -> Twin:
    """One asset of this type."""
    values = [item.value for item in kind.parameters] if parameters is None else parameters
    return Twin(name, kind, np.array(values, dtype=float), {}, {})
