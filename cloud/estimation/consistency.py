"""Is a filter as sure as it should be? (Bar-Shalom, Li & Kirubarajan 2001, section 5.4)"""

from __future__ import annotations

import numpy as np
from scipy.special import gammaincinv

from cloud.twins.model import Floats


def chi_square(probability: float, degrees: float) -> float:
    """Quantile of the chi-square distribution; infinite at probability 1."""
    return float(2.0 * gammaincinv(degrees / 2.0, probability))


def mean_band(samples: int, degrees: int = 1, coverage: float = 0.999) -> tuple[float, float]:
    """Two-sided band for the mean of ``samples`` independent NIS or NEES values of ``degrees`` freedom."""
    if samples == 0:
        return 0.0, np.inf
    tail = (1.0 - coverage) / 2.0
    total = float(samples * degrees)
    return chi_square(tail, total) / samples, chi_square(1.0 - tail, total) / samples


def nees(error: Floats, P: Floats) -> Floats:
    """Normalised estimation error squared (N,) of errors (N, n) under covariances (N, n, n)."""
    whitened = np.linalg.solve(P, error[:, :, None])[:, :, 0]
    return np.asarray((error * whitened).sum(axis=1), dtype=np.float64)
