"""Does the tank's filter know how wrong it is? Monte-Carlo with its own noise, and with the noise it should reject."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from cloud.bank import Bank, Events, Outcome
from cloud.estimation.consistency import chi_square, mean_band, nees
from cloud.twins.compile import compile_type
from cloud.twins.model import Floats, TwinType
from tests.cloud.estimation.models import MS, SECOND, twin
from wire.settings import parse

RUNS, STEPS, PERIOD_MS, FINE = 30, 900, 1000, 40
T0 = 1_700_000_000 * SECOND


TANK = Path(__file__).parents[3] / "configs" / "types" / "quadruple-tank.yaml"


@cache
def shipped() -> TwinType:
    (document,) = parse(TANK.read_text(), TANK.name)
    return compile_type(document)


def tank(q_scale: float = 1.0) -> TwinType:
    """The demo's own tank, believing in ``q_scale`` times its process noise."""
    kind = shipped()
    return replace(kind, process_noise=kind.process_noise * np.sqrt(q_scale), hash=f"{kind.hash}-{q_scale}")


def plant(kind: TwinType, seed: int) -> tuple[Floats, Floats]:
    """Truth (RUNS, steps, n) and samples (RUNS, steps, m) at 1 Hz over 15 minutes: Euler-Maruyama in steps of 25 ms.

    The starts and the noise are drawn from the type's own prior and process noise; pump 1 steps at a third.
    """
    rng = np.random.default_rng(seed)
    p = np.tile([item.value for item in kind.parameters], (RUNS, 1))
    x = rng.normal([s.initial for s in kind.states], [s.sigma for s in kind.states], (RUNS, len(kind.states)))
    h, truth, samples = PERIOD_MS / 1000 / FINE, [], []
    for step in range(STEPS):
        u = np.tile([3.0 if step < STEPS // 3 else 3.4, 3.0], (RUNS, 1))
        for _ in range(FINE if step else 0):
            x = x + h * kind.rates(x, u, p) + np.sqrt(h) * kind.process_noise * rng.normal(size=x.shape)
        truth.append(x)
        samples.append(kind.measure(x, u, p) + rng.normal(0, [s.noise for s in kind.sensors], (RUNS, 2)))
    return np.stack(truth, axis=1), np.stack(samples, axis=1)


@cache
def nominal() -> tuple[Floats, Floats]:
    return plant(tank(), 23)


def share_inside(believed: TwinType) -> tuple[float, float, float]:
    """Share of steps inside the 95 % band of the mean NEES, mean NEES, and mean NIS."""
    truth, samples = nominal()
    bank = Bank()
    handles = np.array([bank.adopt(twin(believed, f"run-{i}")) for i in range(RUNS)])
    inside, total = [], []
    low, high = mean_band(RUNS, 6, 0.95)
    for step in range(STEPS):
        channels = [2, 3] if step not in (0, STEPS // 3) else [0, 1, 2, 3]
        held = [3.0 if step < STEPS // 3 else 3.4, 3.0]
        values = np.stack([np.full(RUNS, held[c]) if c < 2 else samples[:, step, c - 2] for c in channels], axis=1)
        count = RUNS * len(channels)
        # an input's value holds from its stamp on, so it is stamped when the plant begins to feel it
        time = np.array(
            [T0 + (step - (c < 2 and step > 0)) * PERIOD_MS * MS + (c < 2 and step > 0) * MS for c in channels]
        )
        out = bank.step(
            Events(
                np.repeat(handles, len(channels)), np.tile(np.array(channels, np.int16), RUNS), np.tile(time, RUNS),
                np.zeros(count, np.int64), values.ravel(), np.ones(count),
            )
        )  # fmt: skip
        assert out.count(Outcome.FUSED) == count
        if step % 5 == 4:
            posterior = [bank.state(int(handle)) for handle in handles]
            error = truth[:, step] - np.stack([x for _, x, _ in posterior])
            mean = float(nees(error, np.stack([P for _, _, P in posterior])).mean())
            inside.append(low <= mean <= high)
            total.append(mean)
    nis = [view.nis_total / view.updates for view in bank.now([int(h) for h in handles])]
    return float(np.mean(inside)), float(np.mean(total)), float(np.mean(nis))


def test_the_tank_is_as_sure_as_it_should_be() -> None:
    share, mean, nis = share_inside(tank())
    assert 0.85 <= share <= 0.99, (share, mean)
    low, high = mean_band(RUNS * STEPS * 2)
    assert low < nis < high


@pytest.mark.parametrize("q_scale", [4.0, 0.25])
def test_a_wrong_process_noise_shows(q_scale: float) -> None:
    share, mean, _ = share_inside(tank(q_scale))
    assert share < 0.6, (share, mean)
    assert mean < 6.0 if q_scale > 1 else mean > 6.0


def test_bands_of_the_tables() -> None:
    """Bar-Shalom's bands and gates."""
    for runs, degrees, low, high in ((50, 1, 0.647, 1.428), (50, 6, 5.078, 6.998), (100, 4, 3.465, 4.573)):
        assert mean_band(runs, degrees, 0.95) == (pytest.approx(low, abs=1e-3), pytest.approx(high, abs=1e-3))
    for degrees, one, more in ((1, 6.635, 10.828), (4, 13.277, 18.467)):
        assert chi_square(0.99, degrees) == pytest.approx(one, abs=1e-3)
        assert chi_square(0.999, degrees) == pytest.approx(more, abs=1e-3)
    assert chi_square(1.0, 1) == np.inf
    assert mean_band(0) == (0.0, np.inf)


def test_nees_of_a_known_error() -> None:
    P = np.array([[[4.0, 0.0], [0.0, 9.0]]])
    assert nees(np.array([[2.0, 3.0]]), P)[0] == pytest.approx(2.0)
