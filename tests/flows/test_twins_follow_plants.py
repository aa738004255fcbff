"""The shipped twin types against the plants, which were written apart from them: a wrong model is caught here.

One minute of the demo's scenario, faster than real time and without a network: what the instruments show goes straight
into the bank, what the bank believes is compared with the truth.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from cloud.bank import Bank, Events
from cloud.estimation.consistency import mean_band
from cloud.twins.compile import build_twin, compile_type
from cloud.twins.model import Twin
from simulators.assembly import assemble
from simulators.faults import Condition
from simulators.servers.base import Sample
from simulators.station import Station
from wire import settings
from wire.points import PointId
from wire.runtime import files
from wire.units import parse_unit

CONFIGS = Path(__file__).parents[2] / "configs"
ENV = {
    "TWINLINE_TRUTH": "unused.jsonl",
    "MODBUS_PORT": "502",
    "OPCUA_PORT": "4840",
    "MQTT_PORT": "1883",
    "MQTT_PROTOCOL": "5",
}
START, SECOND = 1_700_000_000_000_000_000, 1_000_000_000
TICK = 0.02
POLLED = {"tank": 5}
"""Ticks between two polls of a device that does not speak by itself."""
SEEDS = (20, 21, 22)


@dataclass
class Shelf:
    """Keeps what it is shown."""

    samples: list[Sample] = field(default_factory=list)

    async def serve(self) -> None: ...

    def show(self, samples: Sequence[Sample]) -> None:
        self.samples.extend(samples)

    def impair(self, condition: Condition) -> None: ...


@dataclass
class Run:
    """One plant and its twin for a minute; errors in the twin's own units, over the second half."""

    nis: float
    updates: int
    errors: Mapping[str, np.ndarray]
    raw: Mapping[str, np.ndarray]

    def rmse(self, state: str) -> float:
        return float(np.sqrt(np.mean(self.errors[state] ** 2)))

    def gain(self, state: str, sensor: str) -> float:
        return float(np.sqrt(np.mean(self.raw[sensor] ** 2))) / self.rmse(state)


def twins() -> dict[str, Twin]:
    types = {}
    for file in sorted((CONFIGS / "types").glob("*.yaml")):
        kind = compile_type(settings.parse_one(file.read_text(), str(file)))
        types[kind.name] = kind
    file = CONFIGS / "twins" / "demo.yaml"
    made = [build_twin(document, types) for document in settings.parse(file.read_text(), str(file))]
    return {next(iter(twin.channels.values())).device: twin for twin in made}


def station(device: str, seed: int) -> Station:
    file = CONFIGS / "scenarios" / "demo.yaml"
    text = file.read_text().replace("seed: 20", f"seed: {seed}")
    _, stations = assemble(settings.parse_one(text, str(file), ENV), files.read_text)
    return next(each for each in stations if each.name == device)


def follow(device: str, seed: int, seconds: int = 60) -> Run:
    plant, twin, bank = station(device, seed), twins()[device], Bank()
    shelf = plant.server = Shelf()
    handle = bank.adopt(twin)
    channel = {point.point: index for index, (_, point) in enumerate(_ordered(twin))}
    units = {name: parse_unit(sensor.unit) for name, sensor in plant.plant.sensors.items()}
    errors: dict[str, list[float]] = {state.name: [] for state in twin.type.states}
    raw: dict[str, list[float]] = {name: [] for name in plant.plant.sensors}
    rows: list[tuple[int, int, float]] = []
    for tick in range(seconds * 50):
        if device == "tank" and tick == seconds * 50 // 4:
            plant.plant.actuate("pump1-set", 3.3)
        shelf.samples.clear()
        plant.advance(tick, TICK, START + tick * 20_000_000)
        for name, time, value in shelf.samples:
            if name in channel and value is not None and tick % POLLED.get(device, 1) == 0:
                rows.append((channel[name], time, units[name].to_si(value)))
                raw[name].append(value - plant.plant.measured[name])
        if tick % 50 == 49:
            _step(bank, handle, rows)
            rows.clear()
            if tick >= seconds * 25:
                _compare(bank, handle, twin, plant.plant.state, START + tick * 20_000_000, errors)
    now = bank.now([handle])[0]
    return Run(
        now.nis_total / now.updates,
        now.updates,
        {name: np.array(values) for name, values in errors.items() if values},
        {name: np.array(values) for name, values in raw.items()},
    )


def _ordered(twin: Twin) -> list[tuple[str, PointId]]:
    return [(name, twin.channels[name]) for name in twin.type.channels]


def _step(bank: Bank, handle: int, rows: Sequence[tuple[int, int, float]]) -> None:
    channel, time, value = (np.array(column) for column in zip(*rows, strict=True))
    count = len(rows)
    bank.step(
        Events(np.full(count, handle), channel.astype(np.int16), time, np.zeros(count, np.int64), value, np.ones(count))
    )


def _compare(
    bank: Bank, handle: int, twin: Twin, truth: Mapping[str, float], at: int, errors: dict[str, list[float]]
) -> None:
    for state, mean in zip(twin.type.states, bank.now([handle], at)[0].mean, strict=True):
        if state.name in truth:
            errors[state.name].append(state.unit.from_si(float(mean)) - truth[state.name])


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("device", ["tank", "zone", "car"])
def test_innovations_are_as_large_as_expected(device: str, seed: int) -> None:
    run = follow(device, seed)
    low, high = mean_band(run.updates)
    assert low < run.nis < high


@pytest.mark.parametrize("seed", SEEDS)
def test_tank_beats_its_sensors_and_knows_what_nobody_measures(seed: int) -> None:
    run = follow("tank", seed)
    assert run.gain("h1", "h1") >= 5.0
    assert run.gain("h2", "h2") >= 5.0
    assert run.rmse("h3") <= 0.15
    assert run.rmse("h4") <= 0.15


def test_zone_beats_its_thermometer() -> None:
    assert follow("zone", 20).gain("t_inside", "t-inside") >= 2.0


def test_car_knows_where_it_is_where_it_looks_and_how_its_gyro_lies() -> None:
    run = follow("car", 20)
    assert run.gain("x", "gnss-x") >= 1.5
    assert run.gain("y", "gnss-y") >= 1.5
    assert run.rmse("heading") <= 0.05
    assert run.rmse("gyro_bias") <= 2e-3
