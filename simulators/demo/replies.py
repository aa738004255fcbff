"""What the demo reads from the cloud's HTTP API: only the fields that it shows or counts.

Values are in the units that the twin's author declared, times are ns UTC, ages are seconds, unknown is null.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Reply(BaseModel):
    """A reply may say more than the demo wants to know."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class StateNow(Reply):
    value: float
    sigma: float
    unit: str


class ChannelNow(Reply):
    value: float | None
    unit: str
    age_s: float
    quality: str


class Now(Reply):
    """A twin's belief now."""

    twin: str
    time: int
    age_s: float
    quality: str
    nis: float | None
    nis_band: tuple[float, float | None]
    states: dict[str, StateNow]
    sensors: dict[str, ChannelNow]
    inputs: dict[str, ChannelNow]


class Band(Reply):
    unit: str
    mean: list[float]
    sigma: list[float]


class Trace(Reply):
    unit: str
    time: list[int]
    value: list[float | None]


class History(Reply):
    """Estimates row by row at ``time`` and the readings of the same range."""

    twin: str
    time: list[int]
    states: dict[str, Band]
    readings: dict[str, Trace]


class Step(Reply):
    what: str
    reason: str


class Command(Reply):
    """A setpoint's story so far."""

    id: str
    twin: str
    actuator: str
    value: float
    unit: str
    state: str
    reason: str
    final: bool
    steps: list[Step]


class Latency(Reply):
    p50: float | None
    p99: float | None


class TwinHealth(Reply):
    nis: float | None
    band: tuple[float, float | None]
    consistent: bool


class Presence(Reply):
    source: str
    role: str
    online: bool
    backlog: int


class Stats(Reply):
    """The worker's own count of what it has done; it survives restarts."""

    readings_applied: int
    duplicates: int
    outcomes: dict[str, int]
    latency_ms: Latency
    setpoints: dict[str, int]
    last_setpoint: Command | None = None
    twins: dict[str, TwinHealth]
    presence: list[Presence] = Field(default_factory=list)
