"""The small parts: stacked algebra, bounds, the update, the ring, the bytes of a checkpoint."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import truncnorm

from cloud.estimation.algebra import apply, congruence, dot, outer, product
from cloud.estimation.blobs import Blob, decode, encode
from cloud.estimation.constraints import truncate
from cloud.estimation.ring import LEAST, STRIDE, Ring, Slots, before, spread
from cloud.estimation.update import STREAK, update
from tests.cloud.estimation.models import SECOND, level
from wire.errors import BadData


@pytest.mark.parametrize("n", [1, 2, 3, 6, 9])
def test_stacked_algebra_is_algebra_row_by_row(n: int) -> None:
    rng = np.random.default_rng(n)
    A, B, x = rng.normal(size=(33, n, n)), rng.normal(size=(33, n, n)), rng.normal(size=(33, n))
    assert np.allclose(product(A, B), A @ B, rtol=1e-12, atol=1e-13)
    assert np.allclose(apply(A, x), (A @ x[:, :, None])[:, :, 0], rtol=1e-12, atol=1e-13)
    assert np.allclose(dot(x, x), (x * x).sum(axis=1), rtol=1e-12)
    P = congruence(A, outer(x, x))
    assert (np.swapaxes(P, 1, 2) == P).all()
    for i in (0, 17, 32):
        one = slice(i, i + 1)
        assert product(A[one], B[one])[0].tobytes() == product(A, B)[i].tobytes()
        assert congruence(A[one], outer(x, x)[one])[0].tobytes() == P[i].tobytes()


@settings(max_examples=100, deadline=None)
@given(st.floats(-6, 40), st.floats(0.1, 5.0))
def test_truncation_is_the_truncated_normal(mean: float, sigma: float) -> None:
    got, spread = truncate(np.array([[mean]]), np.array([[sigma]]), np.array([0.0]), np.array([np.inf]))
    book = truncnorm((0.0 - mean) / sigma, np.inf, loc=mean, scale=sigma)
    if mean < 8 * sigma:
        assert got[0, 0] == pytest.approx(book.mean(), rel=1e-6, abs=1e-6)
        assert spread[0, 0] == pytest.approx(book.std(), rel=1e-3, abs=1e-4)
    else:
        assert (got[0, 0], spread[0, 0]) == (mean, sigma)


def test_truncation_far_outside_stays_on_the_bound() -> None:
    low, high = np.array([0.0, -np.inf]), np.array([np.inf, 1.0])
    mean, sigma = truncate(np.array([[-1e6, 1e9]]), np.array([[1.0, 1.0]]), low, high)
    assert mean == pytest.approx(np.array([[0.0, 1.0]]), abs=1e-5)
    assert (sigma >= 0.0).all() and (sigma < 1e-2).all()


def test_the_covariance_stays_one_however_sharp_the_sensor() -> None:
    P = np.array([[[1e8, 9.9e7], [9.9e7, 1e8]]])
    x, h, none = np.zeros((1, 2)), np.array([[1.0, 0.0]]), np.zeros(1, np.int64)
    for _ in range(200):
        after = update(x, P, np.array([0.5]), h, np.array([1e-8]), np.array([np.inf]), none, np.zeros(1))
        x, P = after.x, after.P
        assert (np.swapaxes(P, 1, 2) == P).all() and np.linalg.eigvalsh(P[0]).min() >= 0.0


def test_the_reopened_filter_scores_one() -> None:
    P, h, gate = np.array([[[0.04, 0.01], [0.01, 0.09]]]), np.array([[1.0, 2.0]]), np.array([10.8])
    streak = np.array([STREAK - 1])
    after = update(np.zeros((1, 2)), P, np.array([30.0]), h, np.array([0.25]), gate, streak, np.array([30.0]))
    assert after.scored.reset[0] and not after.scored.gated[0] and after.streak[0] == 0
    assert after.x[0] @ h[0] == pytest.approx(30.0, rel=1e-3)
    assert after.x[0, 1] > after.x[0, 0] > 0.0


def slots(times: list[int], origins: list[int] | None = None) -> Slots:
    count = len(times)
    return Slots(
        np.array(times), np.zeros(count, np.int16), np.array(origins or [0] * count), np.zeros(count), np.ones(count)
    )


def filled(count: int) -> Ring:
    ring = Ring(level(horizon_s=1.0), 1)
    rows = np.zeros(count, np.int64)
    ring.reserve(np.array([0]), np.array([count]))
    ring.write(rows, np.arange(count), slots([i * SECOND for i in range(count)]))
    ring.next[0] = count
    return ring


@pytest.mark.parametrize("count", [1, 7, 300, 500, 2000])
def test_the_ring_finds_the_place_however_far_back(count: int) -> None:
    ring = filled(count)
    row = np.zeros(1, np.int64)
    for number in {0, 1, count // 2, count - 1, count}:
        between = slots([number * SECOND - SECOND // 2])
        assert ring.place(row, between).tolist() == [min(number, count)]
        if number < count:
            assert ring.place(row, slots([number * SECOND])).tolist() == [number]
            assert ring.place(row, slots([number * SECOND], [1])).tolist() == [number + 1]


def test_the_ring_lets_go_in_strides_and_keeps_the_least() -> None:
    ring = filled(2000)
    ring.prune(np.array([0]), np.array([1999 * SECOND]))
    assert ring.first[0] % STRIDE == 0
    assert LEAST <= ring.next[0] - ring.first[0] < LEAST + STRIDE
    assert ring.floor[0] == (ring.first[0] - 1) * SECOND


def test_order_and_numbers() -> None:
    a, b = slots([1, 1, 2], [0, 5, 0]), slots([1, 1, 1], [1, 5, 0])
    assert before(a, b).tolist() == [True, False, False]
    which, number = spread(np.array([10, 4, 7]), np.array([2, 0, 3]))
    assert which.tolist() == [0, 0, 2, 2, 2] and number.tolist() == [10, 11, 7, 8, 9]


def test_bytes_and_back() -> None:
    arrays = {"a": np.arange(6.0).reshape(2, 3), "b": np.array([True]), "none": np.zeros((0, 4), np.int16)}
    data = encode(Blob({"names": ["x"]}, arrays))
    again = decode(data)
    assert again.facts["names"] == ["x"]
    for name, array in arrays.items():
        assert again.arrays[name].dtype == array.dtype and again.arrays[name].tobytes() == array.tobytes()
        assert again.arrays[name].shape == array.shape and again.arrays[name].flags.writeable
    for place in range(0, len(data), 7):
        with pytest.raises(BadData):
            decode(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
