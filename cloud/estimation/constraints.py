"""Published estimates respect physical bounds; the filter's own state does not know them.

A Gaussian cut at a bound keeps the mean and sigma of what is left (PDF truncation, Simon & Simon 2010), bound by
bound and state by state. Far inside the bounds nothing changes, to the last bit.
"""

from __future__ import annotations

import numpy as np
from scipy.special import erfcx

from cloud.twins.model import Floats

_FAR = 8.0
"""A bound further away than this many sigmas cuts off less than 1e-15."""
_SERIES = 50.0


def truncate(mean: Floats, sigma: Floats, low: Floats, high: Floats) -> tuple[Floats, Floats]:
    """mean and sigma (R, n) cut at low and high (n,), infinite where there is no bound."""
    mean, sigma = _above(mean, sigma, low)
    below, sigma = _above(-mean, sigma, -high)
    return np.clip(-below, low, high), sigma


def _above(mean: Floats, sigma: Floats, low: Floats) -> tuple[Floats, Floats]:
    """Moments of the part above ``low``: with a = (low - mean) / sigma and g = pdf(a) / (1 - cdf(a)), a mean of
    mean + sigma g and a variance of sigma^2 (1 - g (g - a))."""
    near = np.isfinite(low) & (sigma > 0.0) & (mean - low < _FAR * sigma)
    if not near.any():
        return mean, sigma
    rows, columns = np.nonzero(near)
    s = sigma[rows, columns]
    above, kept = _tail((low[columns] - mean[rows, columns]) / s)
    mean, sigma = mean.copy(), sigma.copy()
    mean[rows, columns] = low[columns] + s * above
    sigma[rows, columns] = s * np.sqrt(kept)
    return mean, sigma


def _tail(a: Floats) -> tuple[Floats, Floats]:
    """Mean above the cut and variance of a standard normal cut at ``a``; far out by their asymptotic series."""
    far = np.maximum(a, _SERIES)
    g = np.sqrt(2.0 / np.pi) / erfcx(a / np.sqrt(2.0))
    above = np.where(a > _SERIES, 1.0 / far - 2.0 / far**3 + 10.0 / far**5, g - a)
    return above, np.where(a > _SERIES, 1.0 / far**2 - 6.0 / far**4, np.maximum(1.0 - g * (g - a), 0.0))
