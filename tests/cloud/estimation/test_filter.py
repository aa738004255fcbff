"""The filter against textbooks and filterpy, through the bank's own front door."""

from __future__ import annotations

import numpy as np
import pytest
from filterpy.kalman import KalmanFilter
from scipy.linalg import expm, solve_discrete_are
from statsmodels.datasets import nile

from cloud.bank import Bank, Events
from cloud.estimation.discretise import discretise
from cloud.twins.model import Floats, TwinType
from tests.cloud.estimation.models import MS, SECOND, driven, level, linear, tank, trend, twin

T0 = 1_700_000_000 * SECOND


class Single:
    """One twin in a bank, fed sample by sample."""

    def __init__(self, kind: TwinType) -> None:
        self.bank = Bank()
        self.handle = self.bank.adopt(twin(kind))
        self.kind = kind

    def feed(self, channel: int, seconds: float, value: float, noise: float = 1.0) -> None:
        time = T0 + round(seconds * 1000) * MS
        columns = ([self.handle], [channel], [time], [0], [value], [noise])
        self.told = self.bank.step(Events(*(np.array(column) for column in columns)))  # type: ignore[arg-type]

    @property
    def x(self) -> Floats:
        return self.bank.state(self.handle)[1]

    @property
    def P(self) -> Floats:
        return self.bank.state(self.handle)[2]


def test_nile() -> None:
    """Durbin & Koopman: local level, one year taken as one second."""
    kind = linear([[0.0]], [[1.0]], [np.sqrt(1469.1)], [np.sqrt(15099.0)], sigma=[np.sqrt(1e7)], name="nile")
    one, filtered, loglik = Single(kind), [], 0.0
    flow = nile.load_pandas().data["volume"].to_numpy()
    for year, volume in enumerate(flow):
        predicted = one.P[0, 0] + (1469.1 if year else 0.0)
        S = predicted + 15099.0
        loglik -= 0.5 * (np.log(2 * np.pi * S) + (volume - one.x[0]) ** 2 / S)
        one.feed(0, year, volume)
        filtered.append(one.x[0])
    assert filtered[:3] == pytest.approx([1118.3115, 1140.1084, 1072.3160], abs=1e-4)
    assert filtered[-1] == pytest.approx(798.3703, abs=1e-4)
    assert one.P[0, 0] == pytest.approx(4032.1579, abs=1e-4)
    assert loglik == pytest.approx(-641.58558, abs=1e-5)
    mean, sigma = one.bank.forecast(one.handle, T0 + SECOND * np.array([100, 109, 129]))
    assert sigma[:, 0] ** 2 + 15099.0 == pytest.approx([20600.29, 33822.19, 63204.19], abs=0.05)
    assert mean[:, 0] == pytest.approx([798.3703] * 3, abs=1e-4)


def test_nile_with_missing_years() -> None:
    kind = linear([[0.0]], [[1.0]], [np.sqrt(1469.1)], [np.sqrt(15099.0)], sigma=[np.sqrt(1e7)], name="nile")
    one = Single(kind)
    for year, volume in enumerate(nile.load_pandas().data["volume"].to_numpy(), start=1):
        if not (21 <= year <= 40 or 61 <= year <= 80):
            one.feed(0, year, volume)
        if year == 41:
            assert (one.x[0], one.P[0, 0]) == (pytest.approx(889.949, abs=1e-3), pytest.approx(10537.8, abs=0.1))
        if year == 81:
            assert one.x[0] == pytest.approx(771.267, abs=1e-3)


def test_alpha_beta_steady_state() -> None:
    """Kalata's tracker with Q of the continuous white-acceleration model: the gain solves the Riccati equation."""
    q = 0.7
    one = Single(trend(q=q))
    for i in range(200):
        one.feed(0, i, float(i % 5))
    F = np.array([[1.0, 1.0], [0.0, 1.0]])
    Q = q**2 * np.array([[1 / 3, 1 / 2], [1 / 2, 1.0]])
    ahead = F @ one.P @ F.T + Q
    gain = ahead[:, 0] / (ahead[0, 0] + 1.0)
    again = (np.eye(2) - np.outer(gain, [1.0, 0.0])) @ ahead
    assert np.abs(one.P - again).max() < 1e-12
    steady = solve_discrete_are(F.T, np.array([[1.0], [0.0]]), Q, np.eye(1))
    assert ahead == pytest.approx(steady, abs=1e-10)


@pytest.mark.parametrize("is_linear", [True, False])
def test_filterpy_agrees_over_irregular_rows_and_inputs(is_linear: bool) -> None:
    kind = driven(is_linear=is_linear)
    one, rng = Single(kind), np.random.default_rng(7)
    F, B, q = np.array([[-0.5, 0.2], [0.3, -0.1]]), np.array([[1.0, 0.0], [0.0, 0.5]]), np.diag([0.05, 0.02]) ** 2
    book = KalmanFilter(dim_x=2, dim_z=1)
    book.x, book.P = np.zeros((2, 1)), np.eye(2) * 16.0
    u, last, noise = np.zeros(2), None, [0.3, 0.5]
    for i in range(150):
        at, channel, value = round(i * 0.7 + rng.integers(3) * 0.2, 3), int(rng.integers(4)), float(rng.normal())
        if last is not None and at > last:
            step = discretise(F[None], B[None], q[None], np.array([at - last]))
            book.predict(u=u[:, None], F=expm(F * (at - last)), B=step.Bd[0], Q=step.Qd[0])
        if channel < 2:
            u[channel] = value
        else:
            H = np.eye(2)[channel - 2][None]
            book.update(np.array([[value]]), R=np.array([[noise[channel - 2] ** 2]]), H=H)
        if channel >= 2 or last is not None:
            last = at
        one.feed(channel, at, value)
    tolerance = 1e-12 if is_linear else 2e-5
    assert one.x == pytest.approx(book.x[:, 0], abs=tolerance)
    assert np.abs(one.P - book.P).max() < tolerance


def test_splitting_an_interval_changes_nothing() -> None:
    whole, split = Single(driven()), Single(driven())
    for one in (whole, split):
        one.feed(0, 0.0, 2.0)
        one.feed(2, 0.0, 1.0)
    for i in range(1, 40):
        split.feed(0, i * 0.25, 2.0)
    for one in (whole, split):
        one.feed(3, 10.0, 0.5)
    assert split.x == pytest.approx(whole.x, rel=1e-12)
    assert np.abs(split.P / whole.P - 1.0).max() < 1e-12


def test_the_first_sample_starts_its_state_and_counts_once() -> None:
    kind = trend(initial_from=["s0", None])
    one = Single(kind)
    one.feed(0, 0.0, 42.0)
    assert one.x.tolist() == [42.0, 0.0]
    assert one.P.tolist() == [[100.0, 0.0], [0.0, 9.0]]
    assert one.bank.now([one.handle])[0].updates == 0
    one.feed(0, 0.0, 44.0)
    assert one.bank.now([one.handle])[0].updates == 0  # the same stamp and origin: a duplicate
    one.feed(0, 1.0, 44.0)
    assert one.bank.now([one.handle])[0].updates == 1


def test_uncertain_readings_weigh_less() -> None:
    sure, unsure = Single(level()), Single(level())
    sure.feed(0, 0.0, 10.0)
    unsure.feed(0, 0.0, 10.0, noise=3.0)
    assert sure.x[0] == pytest.approx(10 * 100 / 101)
    assert unsure.x[0] == pytest.approx(10 * 100 / 109)


def settled(q: float = 0.1) -> Single:
    one = Single(level(q=q, gate=0.999))
    rng = np.random.default_rng(1)
    for i in range(100):
        one.feed(0, i, float(rng.normal()))
    return one


def test_one_outlier_is_kept_out() -> None:
    one = settled()
    before, variance = one.x[0], one.P[0, 0]
    one.feed(0, 100, 1000.0)
    now = one.bank.now([one.handle])[0]
    assert one.x[0] == before and now.gated == 1 and now.resets == 0
    assert one.P[0, 0] == pytest.approx(variance + 0.01)
    assert now.nis < 2.0


@pytest.mark.parametrize("jump", [10.0, 50.0, 1000.0])
@pytest.mark.parametrize("q", [1e-3, 1e-2, 1e-1])
def test_a_new_level_is_believed_after_five(q: float, jump: float) -> None:
    """A bare gate never locks again; Huber takes hundreds of samples."""
    one = settled(q)
    rng = np.random.default_rng(4)
    resets = []
    for i in range(8):
        one.feed(0, 100 + i, jump + 0.5 * float(rng.normal()))
        resets += one.told.events
    assert one.x[0] == pytest.approx(jump, abs=2.0)
    assert one.bank.now([one.handle])[0].resets == 1
    assert len(resets) == 1 and resets[0].subject == "twin-1" and resets[0].kind == "reset"


def test_scattered_outliers_never_reopen_the_filter() -> None:
    one = settled()
    start = one.x[0]
    for i in range(60):
        one.feed(0, 100 + i, 1000.0 * (1 + i % 7) * (-1) ** i)
    now = one.bank.now([one.handle])[0]
    assert one.x[0] == start and now.resets == 0 and now.gated == 60
    assert now.nis > now.nis_high


def test_gated_sensor_of_one_state_reopens_that_state_alone() -> None:
    kind = linear([[0, 0], [0, 0]], np.eye(2).tolist(), [0.01, 0.01], [1.0, 1.0], sigma=[5.0, 5.0], gate=0.999)
    one = Single(kind)
    for i in range(50):
        one.feed(0, i, 0.0)
        one.feed(1, i, 0.0)
    spread = one.P[1, 1]
    for i in range(50, 55):
        one.feed(0, i, 300.0)
    assert one.x[0] == pytest.approx(300.0, abs=1.0)
    assert one.x[1] == 0.0 and one.P[1, 1] == pytest.approx(spread + 5e-4, rel=1e-6)


def test_a_diverged_state_starts_again_and_says_so() -> None:
    one = Single(linear([[40.0]], [[1.0]], [0.1], [1.0], sigma=[1.0], name="unstable"))
    one.feed(0, 0.0, 1.0)
    one.feed(0, 10_000.0, 3.0)
    now = one.bank.now([one.handle])[0]
    assert np.isfinite(one.x).all() and np.isfinite(one.P).all() and now.resets == 1
    assert "prior" in one.told.events[0].text
    one.feed(0, 10_000.01, 3.0)
    assert np.isfinite(one.x).all()


def test_published_levels_are_never_negative_and_the_state_is_untouched() -> None:
    one, free = Single(level(low=0.0)), Single(level())
    for i in range(30):
        one.feed(0, i, -3.0)
        free.feed(0, i, -3.0)
    assert one.x[0] == free.x[0] < -2.0
    now = one.bank.now([one.handle])[0]
    assert now.mean[0] >= 0.0 and 0.0 < now.sigma[0] < free.bank.now([free.handle])[0].sigma[0]


def test_a_tank_that_runs_dry_stays_finite() -> None:
    one = Single(tank())
    one.feed(0, 0.0, 0.0)
    one.feed(1, 0.0, 0.0)
    for i in range(0, 600, 2):
        one.feed(2, float(i), 0.0)
        one.feed(3, float(i), 0.0)
    one.feed(2, 7200.0, 0.0)
    now = one.bank.now([one.handle])[0]
    assert np.isfinite(one.P).all() and (np.diag(one.P) >= 0).all()
    assert (now.mean[:4] >= 0.0).all() and now.mean[0] < 0.005
