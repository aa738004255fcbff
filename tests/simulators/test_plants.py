"""The physics against literature, closed forms and conservation: oracles that share no line with the plants."""

from __future__ import annotations

from math import cos, exp, hypot, pi, sin, sqrt
from types import ModuleType

import numpy as np
import pytest

from simulators.noise import stream
from simulators.plants import tank, vehicle, zone
from simulators.plants.base import rk4
from wire.errors import Rejected

QUIET_TANK = {"noise_lower": 0.0, "noise_upper": 0.0}
QUIET_ZONE = {"noise": 0.0, "wander_k": 0.0, "wander_w": 0.0}
QUIET_CAR = {"noise_speed": 0.0, "noise_turn": 0.0}
MODULES = [tank, zone, vehicle]


def test_runge_kutta_is_of_fourth_order() -> None:
    def error(steps: int) -> float:
        x = (1.0, 0.0)
        for _ in range(steps):
            x = rk4(lambda y: (y[1], -y[0]), x, 1.0 / steps)
        return hypot(x[0] - cos(1.0), x[1] + sin(1.0))

    assert error(10) / error(20) == pytest.approx(16.0, rel=0.1)


@pytest.mark.parametrize("module", MODULES)
def test_same_seed_same_trajectory(module: ModuleType) -> None:
    def run(seed: int) -> dict[str, float]:
        plant = module.build(stream(seed, "plant"), {})
        for _ in range(500):
            plant.step(0.02)
        return dict(plant.state)

    assert run(1) == run(1)
    assert run(1) != run(2)


def test_tank_settles_at_johanssons_operating_point() -> None:
    plant = tank.build(stream(0), QUIET_TANK)
    for _ in range(20_000):
        plant.step(0.1)
    p, levels = plant.p, plant.state
    # Torricelli in equilibrium: outflow = inflow, solved by hand
    h3 = ((1 - p.split_2) * p.gain_2 * 3.0 / p.outlet_3) ** 2 / (2 * 981.0)
    h4 = ((1 - p.split_1) * p.gain_1 * 3.0 / p.outlet_4) ** 2 / (2 * 981.0)
    into_1 = (1 - p.split_2) * p.gain_2 * 3.0 + p.split_1 * p.gain_1 * 3.0
    h1 = (into_1 / p.outlet_1) ** 2 / (2 * 981.0)
    assert levels["h1"] == pytest.approx(h1, rel=1e-6)
    assert levels["h3"] == pytest.approx(h3, rel=1e-6)
    assert levels["h4"] == pytest.approx(h4, rel=1e-6)
    published = {"h1": 12.4, "h2": 12.7, "h3": 1.8, "h4": 1.4}
    for name, value in published.items():
        assert levels[name] == pytest.approx(value, abs=0.2)


def test_tank_drains_as_torricelli_says() -> None:
    plant = tank.build(stream(0), QUIET_TANK | {"h3": 0.0, "h4": 0.0, "h1": 9.0})
    for name in plant.actuators:
        plant.actuate(name, 0.0)
    plant.x = (*plant.x[:4], 0.0, 0.0)
    for _ in range(500):
        plant.step(0.02)
    p = plant.p
    root = sqrt(9.0) - p.outlet_1 / p.area_1 * sqrt(2 * 981.0) / 2 * 10.0
    assert plant.state["h1"] == pytest.approx(root * root, rel=1e-5)


def test_tank_never_leaves_its_walls() -> None:
    plant = tank.build(stream(3), {})
    for value in (0.0, 10.0):
        for name in plant.actuators:
            plant.actuate(name, value)
        for _ in range(20_000):
            plant.step(0.05)
            assert all(0.0 <= level <= tank.RIM for level in plant.state.values())


def test_tank_process_noise_has_the_packs_size() -> None:
    plant = tank.build(stream(5), {})
    moves = []
    for _ in range(20_000):
        before = plant.x[:4]
        expected = rk4(plant._rates, plant.x, 0.02)[:4]
        plant.step(0.02)
        moves.append([after - mean for after, mean in zip(plant.x[:4], expected, strict=True)])
        plant.x = (*before, *plant.x[4:])
    spread = np.std(np.array(moves), axis=0) / sqrt(0.02)
    assert spread == pytest.approx([5e-3, 5e-3, 1e-2, 1e-2], rel=0.03)


def test_pump_follows_with_its_lag() -> None:
    plant = tank.build(stream(0), QUIET_TANK)
    plant.actuate("pump1-set", 5.0)
    assert plant.settings["pump1-set"] == 5.0
    for _ in range(10):
        plant.step(0.02)
    assert plant.measured["pump1"] == pytest.approx(5.0 - 2.0 * exp(-0.2 / 0.1), rel=1e-4)


@pytest.mark.parametrize("value", [-0.1, 10.1, float("nan"), float("inf")])
def test_device_refuses_what_it_cannot_do(value: float) -> None:
    plant = tank.build(stream(0), {})
    with pytest.raises(Rejected, match="range"):
        plant.actuate("pump1-set", value)
    assert plant.settings["pump1-set"] == 3.0


def test_leak_lowers_tank_one_alone_at_first() -> None:
    sound, leaking = (tank.build(stream(0), QUIET_TANK) for _ in range(2))
    leaking.disturb("leak", 0.2)
    for _ in range(500):
        sound.step(0.02)
        leaking.step(0.02)
    assert leaking.state["h1"] < sound.state["h1"] - 0.5
    assert leaking.state["h2"] == sound.state["h2"]
    with pytest.raises(Rejected, match="unlisted"):
        leaking.disturb("earthquake", 1.0)


def test_zone_keeps_its_energy_balance() -> None:
    plant = zone.build(stream(0), QUIET_ZONE | {"t_inside": 20.0, "t_envelope": 20.0, "t_outside": 20.0, "solar": 0.0})
    plant.x = (20.0, 20.0, 1000.0)
    plant.actuate("heater-set", 1000.0)
    for _ in range(6_000):
        plant.step(0.1)
    p, state = plant.p, plant.state
    stored = p.c_inside * (state["t_inside"] - 20.0) + p.c_envelope * (state["t_envelope"] - 20.0)
    assert stored == pytest.approx(1000.0 * 600.0, rel=2e-3)  # the rest has leaked to the outside


def test_zone_settles_at_its_heat_loss_coefficient() -> None:
    plant = zone.build(stream(0), QUIET_ZONE | {"t_outside": 5.0, "solar": 0.0, "lag_s": 100.0})
    plant.actuate("heater-set", 750.0)
    for _ in range(50_000):
        plant.step(100.0)
    loss = 1.0 / (plant.p.r_inside + plant.p.r_outside)
    assert loss == pytest.approx(50.0, abs=0.5)
    assert plant.state["t_inside"] - 5.0 == pytest.approx(750.0 / loss, rel=1e-4)


def test_vehicle_drives_an_exact_circle() -> None:
    car = vehicle.build(stream(0), QUIET_CAR)
    car.turn, car.speed = 0.1, 10.0
    steps = 200
    for _ in range(steps):
        car._travel(2 * pi / 0.1 / steps)
    assert (car.x, car.y) == pytest.approx((0.0, 0.0), abs=1e-9)
    assert car.heading == pytest.approx(2 * pi)


def test_vehicle_stays_on_its_block_for_an_hour() -> None:
    car = vehicle.build(stream(4), {})
    farthest, speeds = 0.0, []
    for _ in range(36_000):
        car.step(0.1)
        farthest = max(farthest, hypot(car.x, car.y))
        speeds.append(car.speed)
    assert farthest < 500.0
    assert np.mean(speeds) == pytest.approx(12.0, abs=0.3)
    # stationary spread of the mean-reverting speed: sigma * sqrt(tau / 2)
    assert np.std(speeds) == pytest.approx(0.15 * sqrt(30.0 / 2), rel=0.25)


@pytest.mark.parametrize("module", MODULES)
def test_points_and_truth_are_told_apart(module: ModuleType) -> None:
    plant = module.build(stream(0), {})
    assert set(plant.measured) == set(plant.sensors)
    assert set(plant.settings) == set(plant.actuators)
    assert not set(plant.sensors) & set(plant.actuators)


@pytest.mark.parametrize("module", MODULES)
def test_unknown_parameter_is_named(module: ModuleType) -> None:
    with pytest.raises(Rejected, match="colour"):
        module.build(stream(0), {"colour": 1.0})
