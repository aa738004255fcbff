"""A station moves its plant, converts at each sensor's pace, labels its faults, and shows nothing but points."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from simulators.assembly import assemble
from simulators.faults import Condition
from simulators.main import pace
from simulators.servers.base import Sample
from simulators.station import Station
from simulators.truth import TruthLog
from wire import settings
from wire.errors import ConfigError
from wire.runtime import files

CONFIGS = Path(__file__).parents[2] / "configs"
ENV = {
    "TWINLINE_TRUTH": "truth.jsonl",
    "MODBUS_PORT": "15020",
    "OPCUA_PORT": "14840",
    "MQTT_PORT": "11883",
    "MQTT_PROTOCOL": "3.1.1",
}
START = 1_700_000_000_000_000_000


class Shelf:
    """Keeps what it is shown."""

    def __init__(self) -> None:
        self.samples: list[Sample] = []
        self.conditions: list[Condition] = []

    async def serve(self) -> None: ...

    def show(self, samples: Sequence[Sample]) -> None:
        self.samples.extend(samples)

    def impair(self, condition: Condition) -> None:
        self.conditions.append(condition)


def stations(text: str) -> list[Station]:
    file = str(CONFIGS / "scenarios" / "test.yaml")
    return assemble(settings.parse_one(text, file), files.read_text)[1]


TANK = """
scenario: test
seed: {seed}
devices:
  - device: tank
    plant: tank
    profile: ../profiles/tank-{kind}.yaml
    serve: {serve}
    periods: {{h1: 40 ms}}
faults: [{faults}]
"""
SERVES = {
    "modbus": "{kind: modbus, port: 15020}",
    "opcua": "{kind: opcua, port: 14840}",
    "mqtt": "{kind: mqtt, client: tank, broker: {kind: mqtt, port: 11883}}",
}


def tank(faults: str = "", kind: str = "modbus", seed: int = 1) -> tuple[Station, Shelf]:
    text = TANK.format(seed=seed, kind=kind, serve=SERVES[kind], faults=faults)
    (station,) = stations(text)
    shelf = Shelf()
    station.server = shelf
    return station, shelf


def advance(station: Station, ticks: int, dt: float = 0.02) -> None:
    for tick in range(ticks):
        station.advance(tick, dt, START + round(tick * dt * 1e9) + 7)


async def test_every_sensor_at_its_own_pace() -> None:
    station, shelf = tank()
    advance(station, 100)
    times = {name: [s.time for s in shelf.samples if s.point == name] for name in ("h1", "h2", "pump1-set")}
    assert [len(each) for each in times.values()] == [50, 100, 2]
    assert times["h1"][1] - times["h1"][0] == 40_000_000
    assert all(time % 1000 == 0 for each in times.values() for time in each)


async def test_a_setting_is_shown_again_when_it_changes() -> None:
    station, shelf = tank()
    advance(station, 3)
    station.plant.actuate("pump1-set", 4.0)
    station.advance(3, 0.02, START)
    assert [s.value for s in shelf.samples if s.point == "pump1-set"] == [3.0, 4.0]


async def test_the_protocol_changes_no_sample() -> None:
    runs = []
    for kind in SERVES:
        station, shelf = tank(kind=kind)
        advance(station, 50)
        runs.append(shelf.samples)
    assert runs[0] == runs[1] == runs[2]
    other, shelf = tank(seed=2)
    advance(other, 50)
    assert shelf.samples != runs[0]


async def test_truth_is_never_shown() -> None:
    station, shelf = tank()
    advance(station, 10)
    assert {s.point for s in shelf.samples} == set(station.plant.sensors) | set(station.plant.actuators)
    assert not {"h3", "h4"} & {s.point for s in shelf.samples}


async def test_faults_reach_their_place_and_are_labelled() -> None:
    faults = (
        "{fault: leak, device: tank, onset: 1 s, duration: 1 s, magnitude: 0.2},"
        "{fault: dropout, device: tank, point: h1, onset: 1 s, duration: 1 s},"
        "{fault: slow, device: tank, onset: 1 s, duration: 1 s, magnitude: 0.3}"
    )
    station, shelf = tank(faults)
    advance(station, 151)
    lost = [s.time - START for s in shelf.samples if s.point == "h1" and s.value is None]
    assert min(lost) == 1_000_000_000
    assert max(lost) < 2_000_000_000
    assert all(s.value is not None for s in shelf.samples if s.point == "h2")
    assert shelf.conditions == [Condition(delay_s=0.3), Condition()]
    assert station.labels(1.5) == ["leak", "dropout/h1", "slow"]
    assert station.labels(2.0) == []


async def test_pace_keeps_real_time_and_writes_the_truth(tmp_path: Path) -> None:
    station, shelf = tank()
    log = TruthLog(tmp_path / "deep" / "truth.jsonl")
    with log, suppress(TimeoutError):
        async with asyncio.timeout(1.0):
            await pace([station], 0.02, log, lambda: START)
    ticks = sorted({s.time for s in shelf.samples})
    assert 45 <= len(ticks) <= 51
    # stamped with the time it belongs to, not with the time it was done
    assert ticks == [START + k * 20_000_000 for k in range(len(ticks))]
    lines = [json.loads(line) for line in (tmp_path / "deep" / "truth.jsonl").read_text().splitlines()]
    assert 9 <= len(lines) <= 11
    assert {line["plant"] for line in lines} == {"tank"}
    assert set(lines[0]["states"]) == {"h1", "h2", "h3", "h4"}


@pytest.mark.parametrize("file", sorted((CONFIGS / "scenarios").glob("*.yaml")), ids=lambda path: path.stem)
async def test_shipped_scenarios_load(file: Path) -> None:
    document = settings.parse_one(file.read_text(), str(file), ENV)
    scenario, running = assemble(document, files.read_text)
    assert len(running) == len(scenario.devices)


PLANT_OF = {"tank": "tank", "zone": "zone", "car": "vehicle"}


@pytest.mark.parametrize("file", sorted((CONFIGS / "profiles").glob("*.yaml")), ids=lambda path: path.stem)
async def test_any_plant_over_any_protocol(file: Path) -> None:
    name, kind = file.stem.split("-")
    text = TANK.format(seed=1, kind=kind, serve=SERVES[kind], faults="")
    text = text.replace("plant: tank", f"plant: {PLANT_OF[name]}").replace("tank-", f"{name}-")
    text = text.replace("    periods: {h1: 40 ms}\n", "")
    (station,) = stations(text)
    station.advance(0, 0.02, START)


@pytest.mark.parametrize(
    ("change", "messages"),
    [
        (("plant: tank", "plant: tnak"), ["unknown kind `tnak`"]),
        (("kind: modbus,", "kind: modbos,"), ["kind"]),
        (("tank-modbus", "tank-opcua"), ["profile is for opcua, the server speaks modbus"]),
        (("tank-modbus", "zone-modbus"), ["has no point t-inside", "has no point heater-set"]),
        (("tank-modbus", "nowhere"), ["cannot be read"]),
        (("h1: 40 ms", "h9: 40 ms"), ["test.yaml:9:", "h9 is no sensor"]),
        (("port: 15020", "port: 15020, colour: red"), ["colour"]),
        (("seed: 1", "seed: 1\ntick: 5 s"), ["between 1 ms and 100 ms"]),
        (
            ("faults: []", "faults: [{fault: flood, device: tank, onset: 1 s, magnitude: 1}]"),
            ["test.yaml:10:10: there is no fault flood"],
        ),
        (("faults: []", "faults: [{fault: leak, device: tnak, onset: 1 s, magnitude: 1}]"), ["unknown devices: tnak"]),
        (("faults: []", "faults: [{fault: stuck, device: tank, point: h3, onset: 1 s}]"), ["h3 is no sensor"]),
        (("periods:", "parameters: {area_9: 1}\n    periods:"), ["test.yaml:9:", "no parameter area_9", "gain_1"]),
    ],
)
async def test_wrong_scenarios_say_what_is_wrong(change: tuple[str, str], messages: list[str]) -> None:
    text = TANK.format(seed=1, kind="modbus", serve=SERVES["modbus"], faults="")
    assert change[0] in text
    with pytest.raises(ConfigError) as error:
        stations(text.replace(*change))
    for message in messages:
        assert message in str(error.value)


async def test_units_must_agree_with_the_plant(tmp_path: Path) -> None:
    wrong = (CONFIGS / "profiles" / "tank-modbus.yaml").read_text().replace("h1, unit: cm", "h1, unit: mm")
    (tmp_path / "wrong.yaml").write_text(wrong)
    text = TANK.format(seed=1, kind="modbus", serve=SERVES["modbus"], faults="")
    with pytest.raises(ConfigError, match=r"wrong\.yaml:5:\d+: h1 is measured in cm"):
        stations(text.replace("../profiles/tank-modbus.yaml", str(tmp_path / "wrong.yaml")))
