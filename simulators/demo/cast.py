"""Who plays in the demo: which twin follows which plant, and the setpoints that the demo asks for by itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import tau


@dataclass(frozen=True, slots=True)
class StateRole:
    """One state of a twin: its true value in the truth log (times ``scale`` plus ``offset`` in the twin's unit), the
    sensor that measures it directly, if any, and the period if it is an angle."""

    truth: str
    sensor: str | None = None
    period: float | None = None
    scale: float = 1.0
    offset: float = 0.0


@dataclass(frozen=True, slots=True)
class Role:
    """One twin and its plant's name in the truth log."""

    twin: str
    plant: str
    states: Mapping[str, StateRole]


@dataclass(frozen=True, slots=True)
class Cue:
    """A setpoint asked for when this share of the run is over."""

    at: float
    twin: str
    actuator: str
    value: float
    reason: str


ROLES = (
    Role(
        "tank-1",
        "tank",
        {
            "h1": StateRole("h1", "h1"),
            "h2": StateRole("h2", "h2"),
            "h3": StateRole("h3"),
            "h4": StateRole("h4"),
        },
    ),
    Role(
        "zone-1",
        "zone",
        {
            "t_inside": StateRole("t_inside", "t_inside"),
            "t_envelope": StateRole("t_envelope"),
        },
    ),
    Role(
        "car-1",
        "car",
        {
            "x": StateRole("x", "gnss_x"),
            "y": StateRole("y", "gnss_y"),
            "heading": StateRole("heading", period=tau),
            "speed": StateRole("speed", "wheel"),
            "yaw_rate": StateRole("yaw_rate", "gyro"),
            "gyro_bias": StateRole("gyro_bias"),
        },
    ),
)

CUES = (
    Cue(0.25, "tank-1", "pump1", 3.3, "demo: raise the level of tank 1"),
    Cue(0.28, "tank-1", "pump1", 12.0, "demo: a value that no pump can take"),
    Cue(0.32, "tank-1", "pump2", 3.2, "demo: raise the level of tank 2"),
)
