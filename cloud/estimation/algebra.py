"""Small matrices, stacked on axis 0, multiplied element by element.

No BLAS: its kernels may use other roundings for other shapes and machines, while plain products and sums in a fixed
order give one row the same bits whatever else is stacked with it. For n <= 6 they are also as fast.
"""

from __future__ import annotations

import numpy as np

from cloud.twins.model import Floats


def product(A: Floats, B: Floats) -> Floats:
    """A B for each row: (N, i, j) by (N, j, k) -> (N, i, k); either stack may have one row for all."""
    total = A[:, :, 0, None] * B[:, 0, None, :]
    for j in range(1, A.shape[2]):
        total += A[:, :, j, None] * B[:, j, None, :]
    return total


def apply(A: Floats, x: Floats) -> Floats:
    """A x for each row: (N, i, j) by (N, j) -> (N, i); j may be 0."""
    total = np.zeros((max(A.shape[0], x.shape[0]), A.shape[1]))
    for j in range(A.shape[2]):
        total += A[:, :, j] * x[:, j, None]
    return total


def dot(a: Floats, b: Floats) -> Floats:
    """Inner product of each row: (N, n) by (N, n) -> (N,)."""
    total = a[:, 0] * b[:, 0]
    for i in range(1, a.shape[1]):
        total += a[:, i] * b[:, i]
    return total


def outer(a: Floats, b: Floats) -> Floats:
    """a b^T for each row: (N, n) by (N, n) -> (N, n, n)."""
    return a[:, :, None] * b[:, None, :]


def transpose(A: Floats) -> Floats:
    """A^T of each row."""
    return np.swapaxes(A, 1, 2)


def symmetric(A: Floats) -> Floats:
    """The symmetric part of each row: the one place where rounding's asymmetry is removed."""
    return 0.5 * (A + transpose(A))


def congruence(A: Floats, P: Floats) -> Floats:
    """A P A^T for each row, exactly symmetric."""
    return symmetric(product(product(A, P), transpose(A)))


def eye(rows: int, n: int) -> Floats:
    """(rows, n, n) identities, free to be written to."""
    return np.broadcast_to(np.eye(n), (rows, n, n)).copy()


def diagonal(P: Floats) -> Floats:
    """(N, n) variances as a read-only view."""
    return np.diagonal(P, axis1=1, axis2=2)
