"""The shipped types against plants that were written independently: a wrong model is caught here.

A minute of plant time, measured through the simulators' instruments and fused by the real bank, faster than real time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from cloud.bank import Bank, Events, Now
from cloud.twins.compile import build_twin, compile_type
from cloud.twins.model import Twin
from simulators.noise import Instrument, stream
from wire.settings import parse, parse_one

CONFIGS = Path(__file__).parents[3] / "configs"
NS = 1_000_000_000
SECONDS = 60
STEP_S = 0.02


@dataclass(frozen=True)
class Seen:
    """RMSE over the second half, in declared units: of the estimate, and of the raw sensor that shows the state."""

    twin: Mapping[str, float]
    raw: Mapping[str, float]
    now: Now


def shipped(name: str) -> Twin:
    types = {}
    for path in (CONFIGS / "types").glob("*.yaml"):
        kind = compile_type(parse_one(path.read_text(), str(path)))
        types[kind.name] = kind
    text = (CONFIGS / "twins" / "demo.yaml").read_text()
    return next(twin for twin in (build_twin(each, types) for each in parse(text, "demo.yaml")) if twin.name == name)


def watch(name: str, plant_name: str, seed: int, script: Sequence[tuple[float, str, float]] = ()) -> Seen:
    twin = shipped(name)
    kind, bank = twin.type, Bank()
    handle = bank.adopt(twin)
    plant = import_module(f"simulators.plants.{plant_name}").build(stream(seed, "plant"), {})
    instruments = {point: Instrument(sensor, stream(seed, point)) for point, sensor in plant.sensors.items()}
    units = {item.name: item.unit for item in (*kind.inputs, *kind.sensors)}
    every = {point: max(round(max(sensor.period_s, 0.1) / STEP_S), 1) for point, sensor in plant.sensors.items()}
    states = [(i, state) for i, state in enumerate(kind.states) if state.name in plant.state]
    wrong: dict[str, list[float]] = {state.name: [] for _, state in states}
    noise: dict[str, list[float]] = {}
    events: list[tuple[int, int, float]] = []
    for n in range(1, round(SECONDS / STEP_S) + 1):
        for at, point, value in script:
            if n == round(at / STEP_S):
                plant.actuate(point, value)
        plant.step(STEP_S)
        for channel, label in enumerate(kind.channels):
            point = twin.channels[label].point
            if n % every[point] == 0:
                reading = instruments[point].read(plant.measured[point])
                events.append((channel, round(n * STEP_S * NS), units[label].to_si(reading)))
                noise.setdefault(label, []).append(reading - plant.measured[point])
        if n % round(1 / STEP_S) == 0:
            channel, time, value = (np.array(column) for column in zip(*events, strict=True))
            rows = len(events)
            bank.step(Events(np.full(rows, handle), channel, time, np.zeros(rows, np.int64), value, np.ones(rows)))
            events = []
            mean = bank.now([handle])[0].mean
            for i, state in states:
                wrong[state.name].append(state.unit.from_si(float(mean[i])) - plant.state[state.name])
    return Seen(
        {state: _rms(errors[len(errors) // 2 :]) for state, errors in wrong.items()},
        {label: _rms(errors) for label, errors in noise.items()},
        bank.now([handle])[0],
    )


def _rms(values: Sequence[float]) -> float:
    return float(np.sqrt(np.mean(np.square(values))))


def healthy(now: Now) -> bool:
    return now.nis_low <= now.nis <= now.nis_high and now.resets == 0


@pytest.mark.parametrize("seed", [1, 2])
def test_the_tank_knows_the_levels_that_nobody_measures(seed: int) -> None:
    seen = watch("tank-1", "tank", seed, [(15.0, "pump1-set", 3.3), (19.0, "pump2-set", 3.2)])
    assert healthy(seen.now)
    assert max(seen.twin["h3"], seen.twin["h4"]) < 0.15
    for level in ("h1", "h2"):
        assert seen.raw[level] > 5 * seen.twin[level]


@pytest.mark.parametrize("seed", [1, 2])
def test_the_car_knows_its_heading_and_its_gyros_bias(seed: int) -> None:
    seen = watch("car-1", "vehicle", seed)
    assert healthy(seen.now)
    assert seen.twin["heading"] < 0.06
    assert seen.twin["gyro_bias"] < 0.003
    assert np.hypot(seen.twin["x"], seen.twin["y"]) < 0.8 * np.hypot(seen.raw["gnss_x"], seen.raw["gnss_y"])


def test_the_zone_smooths_its_thermometer() -> None:
    seen = watch("zone-1", "zone", 1)
    assert healthy(seen.now)
    assert seen.twin["t_inside"] < seen.raw["t_inside"] / 2
    assert seen.twin["t_envelope"] < 6.0
