"""The bodies of the HTTP API: values in declared units, times in ns UTC, ages in seconds; what is not known is null.

======  ==========================================  ==========================================
POST    /v1/apply                                   ApplyRequest -> ApplyReply
GET     /v1/twins                                   TwinsReply
GET     /v1/twins/{twin}                            TwinReply
GET     /v1/twins/{twin}/now                        NowReply
GET     /v1/twins/{twin}/history?from=&to=          HistoryReply (``readings=no`` leaves them out)
GET     /v1/twins/{twin}/next?for=10m               NextReply
POST    /v1/twins/{twin}/setpoints                  OrderRequest -> CommandReply (202)
GET     /v1/setpoints/{id}?wait=10s&after=1         CommandReply
GET     /v1/stats                                   StatsReply
GET     /v1/health                                  HealthReply
======  ==========================================  ==========================================

A time is ns UTC, ISO 8601 with its zone, or a duration before now (``10m``); a duration is ``90 s``, ``10m``, ``2 h``.
Every route needs ``Authorization: Bearer TOKEN``. Errors are ``{"error": word, "detail": text, "problems": [...]}``.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class Body(BaseModel):
    """What every body has in common."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class File(Body):
    """One configuration file as text; ``file`` is only for messages."""

    file: str
    text: str


class ApplyRequest(Body):
    files: list[File]


class ChangeReply(Body):
    """What applying did to one type or twin."""

    kind: Literal["type", "twin"]
    name: str
    action: Literal["created", "changed", "unchanged"]
    revision: int


class ApplyReply(Body):
    changes: list[ChangeReply]


class TwinLine(Body):
    """One row of the list; ``age_s`` is null while the twin has not started."""

    twin: str
    type: str
    version: str
    mode: str
    age_s: float | None
    quality: str


class TwinsReply(Body):
    twins: list[TwinLine]


class ChannelReply(Body):
    """A sensor or an input, and the point it is bound to."""

    unit: str
    point: str | None
    noise: float | None = None


class ActuatorReply(Body):
    """An actuator's limits in its own unit."""

    unit: str
    low: float
    high: float
    rate_per_s: float | None
    hold_s: float
    safe: float
    tolerance: float
    write: str
    read: str


class TwinReply(Body):
    """Everything declared about one twin."""

    twin: str
    type: str
    version: str
    hash: str
    mode: str
    states: dict[str, str]
    """Unit by state."""
    parameters: dict[str, tuple[float, str]]
    sensors: dict[str, ChannelReply]
    inputs: dict[str, ChannelReply]
    actuators: dict[str, ActuatorReply]


class StateNow(Body):
    value: float
    sigma: float
    unit: str


class ChannelNow(Body):
    """The newest reading of a channel; ``fused`` is false for a live value that overtook a backlog.

    ``state`` is the state that the sensor reads directly, null for a sensor of several states and for inputs.
    """

    state: str | None
    value: float | None
    unit: str
    time: int
    age_s: float
    quality: str
    fused: bool


class NowReply(Body):
    """The belief at ``at``, predicted from the newest event at ``time``; ``quality``: good, uncertain or bad/stale."""

    twin: str
    at: int
    time: int
    age_s: float
    quality: str
    nis: float | None
    nis_band: tuple[float, float | None]
    states: dict[str, StateNow]
    sensors: dict[str, ChannelNow]
    inputs: dict[str, ChannelNow]


class Band(Body):
    """A state over time."""

    unit: str
    mean: list[float]
    sigma: list[float]


class Trace(Body):
    """Readings of one channel over time; a bad reading has no value."""

    unit: str
    point: str
    time: list[int]
    value: list[float | None]
    quality: list[str]


class HistoryReply(Body):
    """Estimates row by row at ``time``, and the readings of the same range. Times in [start, end)."""

    twin: str
    start: int
    end: int
    time: list[int]
    revision: list[int]
    states: dict[str, Band]
    readings: dict[str, Trace]


class NextReply(Body):
    """Forecast with inputs held at their newest values."""

    twin: str
    at: int
    time: list[int]
    states: dict[str, Band]


class OrderRequest(Body):
    """A setpoint, absolute; ``unit`` defaults to the actuator's. ``key`` makes repeating the request harmless."""

    actuator: Annotated[str, Field(min_length=1, max_length=63)]
    value: Annotated[float, Field(strict=True)]
    unit: Annotated[str, Field(max_length=32)] | None = None
    key: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    reason: Annotated[str, Field(max_length=200)] = ""
    deadline_s: Annotated[float, Field(strict=True, gt=0, le=3600)] = 10.0


class StepReply(Body):
    what: str
    reason: str
    at: int
    detail: dict[str, object]


class CommandReply(Body):
    """A setpoint's story; ``final`` once ``state`` will never change again."""

    id: str
    twin: str
    actuator: str
    point: str
    value: float
    unit: str
    state: str
    reason: str
    final: bool
    standing: bool
    steps: list[StepReply]


class LatencyReply(Body):
    p50: float | None
    p99: float | None


class HealthOfTwin(Body):
    """Mean NIS over the window and its 99.9 % band; ``consistent`` while inside. Totals count since the beginning."""

    nis: float | None
    band: tuple[float, float | None]
    consistent: bool
    nis_total: float
    updates: int
    gated: int
    resets: int


class PresenceReply(Body):
    source: str
    role: str
    online: bool
    age_s: float
    backlog: int


class StatsReply(Body):
    readings_applied: int
    duplicates: int
    outcomes: dict[str, int]
    latency_ms: LatencyReply
    setpoints: dict[str, int]
    last_setpoint: CommandReply | None
    twins: dict[str, HealthOfTwin]
    presence: list[PresenceReply]


class HealthReply(Body):
    """``degraded`` while an announced edge or gateway is away."""

    status: Literal["ok", "degraded"]
    twins: int
    away: list[str]
