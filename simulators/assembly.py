"""From a scenario file and its profiles to stations, with everything that does not fit reported at its place."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import ModuleType

from pydantic import ValidationError

from simulators.faults import DEVICE_FAULTS, SENSOR_FAULTS, Fault, SensorFaults
from simulators.noise import Instrument, stream
from simulators.plants.base import Plant
from simulators.profile import Profile, Served
from simulators.scenario import PLANTS, SERVERS, Device, Scenario
from simulators.servers.base import Server
from simulators.station import Station
from wire import settings
from wire.errors import ConfigError, Problem, Rejected
from wire.runtime import plugins
from wire.settings import Document


def assemble(document: Document, read: Callable[[str], str]) -> tuple[Scenario, list[Station]]:
    """A scenario and its stations, not yet moving; ``read`` gives the text of a profile by its path.

    Raises ConfigError with the problems of the scenario and of all its profiles.
    """
    scenario = document.load(Scenario)
    stations: list[Station] = []
    problems: list[Problem] = []
    for index, device in enumerate(scenario.devices):
        try:
            profile = settings.parse_one(read(device.profile), device.profile)
            stations.append(_station(scenario, device, profile, _Places(document, index)))
        except ConfigError as error:
            problems.extend(error.problems)
    if problems:
        raise ConfigError(problems)
    return scenario, stations


class _Places:
    """Where in the scenario one device is written."""

    def __init__(self, document: Document, index: int) -> None:
        self._document = document
        self._index = index

    def device(self, field: str, message: str, hint: str = "") -> Problem:
        return self._document.problem(("devices", self._index, field), message, hint)

    def fault(self, index: int, message: str, hint: str = "") -> Problem:
        return self._document.problem(("faults", index), message, hint)


def _station(scenario: Scenario, device: Device, profile: Document, places: _Places) -> Station:
    seed, name = scenario.seed, device.device
    plant = _plant(device, seed, places)
    module = plugins.load(SERVERS, device.serve.kind)
    points = _points(profile, device.serve.kind, module)
    faults = [(index, fault) for index, fault in enumerate(scenario.faults) if fault.device == name]
    problems = [
        *_strange_points(profile, plant, points),
        *_strange_periods(device, plant, places),
        *_strange_faults(faults, plant, places),
    ]
    if problems:
        raise ConfigError(problems)
    mine = tuple(fault for _, fault in faults)
    periods = {point: device.periods.get(point, sensor.period_s) for point, sensor in plant.sensors.items()}
    server: Server = module.Server(device.serve, points, plant.actuate)
    return Station(
        name=name,
        plant=plant,
        server=server,
        faults=mine,
        every={point: max(1, round(period / scenario.tick)) for point, period in periods.items()},
        instruments={point: Instrument(sensor, stream(seed, name, point)) for point, sensor in plant.sensors.items()},
        ills={point: _ills(point, mine, seed, name) for point in plant.sensors},
    )


def _plant(device: Device, seed: int, places: _Places) -> Plant:
    module = plugins.load(PLANTS, device.plant)
    try:
        plant: Plant = module.build(stream(seed, device.device), device.parameters)
    except Rejected as refusal:
        raise ConfigError([places.device("parameters", f"plant {device.plant}: {refusal.detail}")]) from None
    return plant


def _ills(point: str, faults: Iterable[Fault], seed: int, device: str) -> SensorFaults:
    return SensorFaults(tuple(fault for fault in faults if fault.point == point), stream(seed, device, point, "faults"))


def _points(document: Document, kind: str, module: ModuleType) -> tuple[Served, ...]:
    profile = document.load(Profile)
    if profile.kind != kind:
        raise ConfigError([document.problem(("kind",), f"profile is for {profile.kind}, the server speaks {kind}")])
    try:
        points: tuple[Served, ...] = profile.served(module.Address)
    except ValidationError as error:
        raise ConfigError(
            document.problem(detail["loc"], f"{detail['loc'][-1]}: {detail['msg']}")
            for detail in error.errors(include_url=False)
        ) from None
    return points


def _strange_points(document: Document, plant: Plant, points: Iterable[Served]) -> Iterable[Problem]:
    """Profile and plant must speak of the same points in the same units."""
    units = {name: sensor.unit for name, sensor in plant.sensors.items()}
    units |= {name: actuator.unit for name, actuator in plant.actuators.items()}
    for index, point in enumerate(points):
        if point.point not in units:
            hint = f"points of this plant: {', '.join(sorted(units))}"
            yield document.problem(("points", index, "point"), f"the plant has no point {point.point}", hint)
        elif point.unit != units[point.point]:
            yield document.problem(("points", index, "unit"), f"{point.point} is measured in {units[point.point]}")


def _strange_periods(device: Device, plant: Plant, places: _Places) -> Iterable[Problem]:
    for name in sorted(set(device.periods) - set(plant.sensors)):
        yield places.device("periods", f"{name} is no sensor", f"sensors: {', '.join(sorted(plant.sensors))}")


def _strange_faults(faults: Iterable[tuple[int, Fault]], plant: Plant, places: _Places) -> Iterable[Problem]:
    known = SENSOR_FAULTS | DEVICE_FAULTS | plant.faults
    for index, fault in faults:
        if fault.fault not in known:
            yield places.fault(index, f"there is no fault {fault.fault}", f"known: {', '.join(sorted(known))}")
        elif fault.fault in SENSOR_FAULTS and fault.point not in plant.sensors:
            yield places.fault(index, f"{fault.point} is no sensor", f"sensors: {', '.join(sorted(plant.sensors))}")
