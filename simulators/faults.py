"""Faults with onset, ramp, duration and magnitude: of a sensor, of a device's interface, or of the plant itself.

=========  ===========  ===================================================================================
dropout    sensor       samples are missing, each with probability ``magnitude`` (default: all of them)
stuck      sensor       the last value before the onset is repeated
bias       sensor       ``magnitude`` is added, in the point's unit
spike      sensor       ``magnitude`` is added to one sample in twenty, up or down
slow       device       answers (polled) or messages (pushed) come ``magnitude`` seconds late
dead       device       no answer, no message, no connection
others     plant        what the plant knows: ``leak``, ``pump1-loss``, ``window``, ``slip`` ...
=========  ===========  ===================================================================================

Times count from the start of the scenario, so a fault and its label share one time base.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Self

import numpy as np
from pydantic import model_validator

from wire.points import Name
from wire.settings import Duration, Settings

SENSOR_FAULTS = frozenset({"dropout", "stuck", "bias", "spike"})
DEVICE_FAULTS = frozenset({"slow", "dead"})
SPIKE_SHARE = 0.05


class Fault(Settings):
    """One fault of a scenario."""

    fault: Name
    device: Name
    point: Name | None = None
    """The sensor it hits; only and always for sensor faults."""
    onset: Duration
    duration: Duration | None = None
    """Until the end if not given."""
    ramp: Duration = 0.0
    """Time from the onset to full magnitude, linear."""
    magnitude: float | None = None
    """Needed by all but ``stuck``, ``dead`` and ``dropout``."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.fault in SENSOR_FAULTS) != (self.point is not None):
            wanted = "needs the point it hits" if self.point is None else "takes no point"
            raise ValueError(f"fault {self.fault} {wanted}")
        if self.magnitude is None and self.fault not in ("stuck", "dead", "dropout"):
            raise ValueError(f"fault {self.fault} needs a magnitude")
        if self.fault == "dropout" and self.magnitude is not None and not 0.0 < self.magnitude <= 1.0:
            raise ValueError("the magnitude of a dropout is the share of samples lost, above 0 and at most 1")
        return self

    def active(self, t: float) -> bool:
        """True while the fault is there, ``t`` seconds into the scenario."""
        return t >= self.onset and (self.duration is None or t < self.onset + self.duration)

    def size(self, t: float) -> float:
        """The magnitude at ``t``: 0 outside, rising along the ramp, then full (1 where none is given)."""
        if not self.active(t):
            return 0.0
        full = 1.0 if self.magnitude is None else self.magnitude
        return full * min(1.0, (t - self.onset) / self.ramp) if self.ramp > 0.0 else full


@dataclass(frozen=True, slots=True)
class Condition:
    """How a device's interface is doing."""

    delay_s: float = 0.0
    dead: bool = False


def condition(faults: Iterable[Fault], t: float) -> Condition:
    """The worst of all device faults at ``t``."""
    active = [fault for fault in faults if fault.active(t)]
    delays = [fault.size(t) for fault in active if fault.fault == "slow"]
    return Condition(delay_s=max(delays, default=0.0), dead=any(fault.fault == "dead" for fault in active))


def plant_faults(faults: Iterable[Fault]) -> list[Fault]:
    """Those that belong to the plant itself."""
    return [fault for fault in faults if fault.fault not in SENSOR_FAULTS | DEVICE_FAULTS]


@dataclass(slots=True)
class SensorFaults:
    """The faults of one sensor, in front of and behind its converter."""

    faults: tuple[Fault, ...]
    rng: np.random.Generator
    last: float | None = field(default=None)

    def shift(self, t: float) -> float:
        """What is added ahead of the converter: bias and spikes."""
        added = 0.0
        for fault in self.faults:
            if fault.fault == "bias":
                added += fault.size(t)
            elif fault.fault == "spike" and fault.active(t) and self.rng.random() < SPIKE_SHARE:
                added += fault.size(t) if self.rng.random() < 0.5 else -fault.size(t)
        return added

    def apply(self, t: float, value: float) -> float | None:
        """What the device shows for a converted value; None if it has no value to show."""
        kinds = {fault.fault: fault for fault in self.faults if fault.active(t)}
        if "stuck" in kinds and self.last is not None:
            value = self.last
        self.last = value
        dropout = kinds.get("dropout")
        if dropout is not None and self.rng.random() < dropout.size(t):
            return None
        return value
