"""A station: one plant, its instruments, its faults, and the server that shows it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from simulators.faults import Condition, Fault, SensorFaults, condition, plant_faults
from simulators.noise import Instrument
from simulators.plants.base import Plant
from simulators.servers.base import Sample, Server

SETTINGS_S = 1.0
"""A setting that does not change is shown again after this time, for who came late."""


@dataclass(slots=True)
class Station:
    """Moved by ``advance`` alone; it has no clock of its own.

    ``every`` says for each sensor how many ticks pass between two conversions.
    """

    name: str
    plant: Plant
    server: Server
    faults: tuple[Fault, ...]
    every: Mapping[str, int]
    instruments: Mapping[str, Instrument]
    ills: Mapping[str, SensorFaults]
    shown: dict[str, float] = field(default_factory=dict)
    condition: Condition = field(default_factory=Condition)

    def advance(self, tick: int, dt: float, stamp_ns: int) -> None:
        """Let one tick pass (none before the first) and show what was converted, stamped in whole microseconds."""
        t = tick * dt
        for fault in plant_faults(self.faults):
            self.plant.disturb(fault.fault, fault.size(t))
        if tick:
            self.plant.step(dt)
        well = condition(self.faults, t)
        if well != self.condition:
            self.condition = well
            self.server.impair(well)
        repeat = tick % max(1, round(SETTINGS_S / dt)) == 0
        samples = [*self._converted(tick, t, stamp_ns // 1000 * 1000), *self._settings(repeat, stamp_ns // 1000 * 1000)]
        if samples:
            self.server.show(samples)

    def labels(self, t: float) -> list[str]:
        """Names of the faults that are active."""
        return [
            f"{fault.fault}/{fault.point}" if fault.point else fault.fault for fault in self.faults if fault.active(t)
        ]

    def _converted(self, tick: int, t: float, stamp_ns: int) -> Iterable[Sample]:
        due = [name for name, every in self.every.items() if tick % every == 0]
        if not due:
            return
        measured = self.plant.measured
        for name in due:
            ill = self.ills[name]
            value = self.instruments[name].read(measured[name], ill.shift(t))
            yield Sample(name, stamp_ns, ill.apply(t, value))

    def _settings(self, repeat: bool, stamp_ns: int) -> Iterable[Sample]:
        """Actuator commands that have changed, also by another's hand; all of them when it is time to repeat."""
        for name, value in self.plant.settings.items():
            if repeat or self.shown.get(name) != value:
                self.shown[name] = value
                yield Sample(name, stamp_ns, value)
