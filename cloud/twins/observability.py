"""Whether the sensors can tell the states apart at all: the rank of the stacked observability matrix, scaled."""

from __future__ import annotations

import numpy as np

from cloud.twins.model import Floats, TwinType

TOLERANCE = 1e-9
"""Relative size of a singular value below which a direction counts as unseen."""
STEP_OFF = 0.37
"""Fraction of sigma by which the check steps off the initial value: a car at rest, or a symmetric point, hides states
that ordinary operation shows."""


def unobservable(kind: TwinType) -> list[str]:
    """States that no sensor ever feels, alone or through the dynamics; linearised near the initial values.

    With S the initial standard deviations and tau the fastest time constant, the rows are H (tau F)^k S for
    k = 0 .. n-1, each block scaled by the sensors' own reach, so that the rank does not depend on units.
    """
    sigma = np.array([state.sigma for state in kind.states])
    x = np.array([[state.initial for state in kind.states]]) + STEP_OFF * sigma
    u = np.array([[item.initial for item in kind.inputs]]).reshape(1, len(kind.inputs))
    p = np.array([[item.value for item in kind.parameters]]).reshape(1, len(kind.parameters))
    F = _scaled(kind.rates_jacobian(x, u, p)[0] * sigma / sigma[:, None])
    H = kind.measure_jacobian(x, u, p)[0] * sigma
    H = H / np.maximum(np.abs(H).max(axis=1, keepdims=True), np.finfo(float).tiny)
    blocks = [H]
    for _ in range(len(sigma) - 1):
        blocks.append(_scaled(blocks[-1] @ F))
    stacked = np.vstack(blocks)
    if not np.isfinite(stacked).all():
        return [state.name for state in kind.states]
    _, singular, directions = np.linalg.svd(stacked, full_matrices=True)
    rank = int((singular > TOLERANCE * singular.max(initial=1.0)).sum())
    hidden = np.abs(directions[rank:])
    if not hidden.size:
        return []
    share = hidden.max(axis=0)
    return [state.name for state, part in zip(kind.states, share, strict=True) if part > 0.5 * share.max()]


def _scaled(matrix: Floats) -> Floats:
    largest = float(np.abs(matrix).max(initial=0.0))
    return matrix / largest if largest > 0 else matrix
