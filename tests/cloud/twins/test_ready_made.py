"""Ready-made types: a unit and a noise figure are enough, and the model that results is the documented one."""

from __future__ import annotations

import numpy as np
import pytest

from cloud.bank import Bank, Events
from cloud.twins.compile import build_twin
from cloud.twins.model import Twin
from wire.errors import ConfigError
from wire.settings import parse_one

NONE = np.zeros((1, 0))


def twin(of: str, given: str = "{unit: degC, noise: 0.2 degC}") -> Twin:
    text = f"twin: temp-1\nof: {of}\nwith: {given}\nbind: {{value: demo/edge/dev/point}}\n"
    return build_twin(parse_one(text, "twin.yaml"), {})


def test_a_signal_in_one_line() -> None:
    kind = twin("signal@1").type
    (state,) = kind.states
    assert (kind.name, kind.linear, kind.channels) == ("signal", True, ("value",))
    assert (state.initial_from, state.sigma) == ("value", 0.2)
    assert kind.sensors[0].noise == 0.2
    assert kind.process_noise == pytest.approx([0.2 / 10**0.5])


@pytest.mark.parametrize("unit", ["degC", "", "%", "cm^3/s", "W/(m^2*K)", "rad"])
@pytest.mark.parametrize("of", ["signal", "level_trend", "first_order"])
def test_any_unit_will_do(of: str, unit: str) -> None:
    kind = twin(of, f'{{unit: "{unit}", noise: "0.2 {unit}"}}').type
    assert kind.linear
    assert kind.states[0].unit.text == unit


def test_a_trend_is_the_slope_of_the_value() -> None:
    kind = twin("level_trend").type
    F = kind.rates_jacobian(np.zeros((1, 2)), np.zeros((1, 0)), np.zeros((1, 0)))
    assert F.tolist() == [[[0.0, 1.0], [0.0, 0.0]]]
    assert kind.states[1].unit.text == "degC/s"
    assert kind.process_noise == pytest.approx([0.0, 0.2 / 30**1.5])


def test_a_first_order_lag_follows_its_target() -> None:
    made = twin("first_order", "{unit: degC, noise: 0.2 degC, tau: 2 min}")
    rates = made.type.rates(np.array([[290.0, 302.0]]), np.zeros((1, 0)), made.parameters[None])
    assert rates == pytest.approx(np.array([[0.1, 0.0]]))


def test_what_is_given_wins() -> None:
    given = "{unit: degC, noise: 200 mK, wander: 1 degC/sqrt(h), period: 5 s, tick: 10 s, horizon: 1 h}"
    kind = twin("signal", given).type
    assert kind.process_noise == pytest.approx([1 / 60])
    assert kind.sensors[0].noise == pytest.approx(0.2)
    assert kind.sensors[0].period_ns == 5 * 10**9
    assert (kind.tick_ns, kind.horizon_ns) == (10**10, 3600 * 10**9)


def test_twins_given_the_same_share_a_model() -> None:
    assert twin("signal").type.hash == twin("signal").type.hash
    assert twin("signal").type.hash != twin("signal", "{unit: degC, noise: 0.3 degC}").type.hash


@pytest.mark.parametrize(
    ("of", "given", "expected"),
    [
        ("signal", "{unit: degC}", "3:1: `noise` is missing"),
        ("signal", "{unit: degC, noise: 0 degC}", "3:27: must be above zero"),
        ("signal", "{unit: degC, noise: 0.2 m}", "3:27: m does not measure what degC does"),
        ("signal", "{unit: degx, noise: 0.2 K}", "3:14: 'degx': unknown unit"),
        ("signal", "{unit: degC, noise: 0.2 K, wander: 1 degC/s}", "degC/s is not a unit of K/s^0.5"),
        ("signal", "{unit: degC, noise: 0.2 K, tau: 3 s}", "signal has no time constant"),
        ("first_order", "{unit: degC, noise: 0.2 K, tau: 0 s}", "3:39: must be above zero"),
        ("signal", "{unit: degC, nose: 0.2 K}", "did you mean `noise`?"),
        ("signal@2", "{unit: degC, noise: 0.2 K}", "signal is at version 1.0.0"),
    ],
)
def test_what_is_wrong_is_told_where_it_was_written(of: str, given: str, expected: str) -> None:
    with pytest.raises(ConfigError) as refused:
        twin(of, given)
    assert expected in str(refused.value)


def test_a_unit_and_a_noise_are_needed() -> None:
    with pytest.raises(ConfigError, match="signal needs its unit and noise"):
        build_twin(parse_one("twin: t\nof: signal\nbind: {value: a/b/c/d}", "t.yaml"), {})


@pytest.mark.parametrize("of", ["signal", "level_trend", "first_order"])
def test_a_ready_made_twin_is_consistent_on_its_own_world(of: str) -> None:
    """Data drawn from the model itself give a mean NIS of 1, whatever the model."""
    made = twin(of)
    kind, rng, steps = made.type, np.random.default_rng(7), 2_000
    bank = Bank()
    handle = bank.adopt(made)
    x, values = np.array([[state.initial + 20.0 * (state.unit.offset > 0) for state in kind.states]]), []
    for _ in range(steps):
        for _ in range(20):
            x = x + kind.rates(x, NONE, made.parameters[None]) / 20
            x = x + kind.process_noise * rng.standard_normal(x.shape) / 20**0.5
        values.append(float(x[0, 0]) + 0.2 * rng.standard_normal())
    rows = np.zeros(steps, np.int64)
    time = np.arange(1, steps + 1) * 10**9
    bank.step(Events(rows + handle, rows.astype(np.int16), time, rows, np.array(values), rows + 1.0))
    now = bank.now([handle])[0]
    assert now.resets == 0
    assert now.nis_total / now.updates == pytest.approx(1.0, abs=0.12)
