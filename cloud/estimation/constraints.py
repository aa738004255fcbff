"""Published estimates respect physical bounds; the filter's own state does not know them.

A Gaussian cut at a bound keeps the mean and sigma of what is left (PDF truncation, Simon & Simon 2010), bound by
bound and state by state. Far inside the bounds nothing changes, to the last bit.
"""

from __future__ import annotations

import numpy as np
from scipy.special import log_ndtr

from cloud.twins.model import Floats

_FAR = 8.0
"""A bound further away than this many sigmas cuts off less than 1e-15."""


def truncate(mean: Floats, sigma: Floats, low: Floats, high: Floats) -> tuple[Floats, Floats]:
    """mean and sigma (R, n) cut at low and high (n,), infinite where there is no bound."""
    mean, sigma = _above(mean, sigma, low)
    below, sigma = _above(-mean, sigma, -high)
    return np.clip(-below, low, high), sigma


def _above(mean: Floats, sigma: Floats, low: Floats) -> tuple[Floats, Floats]:
    """Moments of the part above ``low``: with a = (low - mean) / sigma, g = pdf(a) / (1 - cdf(a)): mean + sigma g."""
    near = np.isfinite(low) & (sigma > 0.0) & (mean - low < _FAR * sigma)
    if not near.any():
        return mean, sigma
    rows, columns = np.nonzero(near)
    m, s = mean[rows, columns], sigma[rows, columns]
    a = (low[columns] - m) / s
    g = np.exp(-0.5 * a * a - 0.5 * np.log(2.0 * np.pi) - log_ndtr(-a))
    kept = np.maximum(1.0 - g * (g - a), 0.0)
    mean, sigma = mean.copy(), sigma.copy()
    mean[rows, columns] = m + s * g
    sigma[rows, columns] = s * np.sqrt(kept)
    return mean, sigma
