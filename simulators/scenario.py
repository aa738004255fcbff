"""A scenario file: which plants run, behind which servers, with which faults, and where the truth goes."""

from __future__ import annotations

import json
from typing import Annotated, Any, Self

from pydantic import BaseModel, Field, PlainValidator, ValidationInfo, field_validator, model_validator

from simulators.faults import Fault
from wire.errors import ConfigError
from wire.points import Name
from wire.runtime import plugins
from wire.settings import Duration, LocalPath, Settings

PLANTS = "simulators.plants"
SERVERS = "simulators.servers"


def _server(value: object, info: ValidationInfo) -> BaseModel:
    """The settings of a server, checked by the module that its ``kind`` names."""
    kind = value.get("kind", "") if isinstance(value, dict) else ""
    if kind not in plugins.kinds(SERVERS):
        raise ValueError(f"needs a kind: one of {', '.join(plugins.kinds(SERVERS))}")
    try:
        model: type[BaseModel] = plugins.load(SERVERS, str(kind)).Config
    except ConfigError as error:
        raise ValueError(f"{error.problems[0].message} ({error.problems[0].hint})") from None
    return model.model_validate_json(json.dumps(value), context=info.context)


class Device(Settings):
    """One plant behind one server."""

    device: Name
    plant: Name
    """Module in ``simulators.plants``."""
    profile: LocalPath
    serve: Annotated[Any, PlainValidator(_server)]
    """The server's own settings, told apart by ``kind``."""
    parameters: dict[str, float] = Field(default_factory=dict)
    """Constants of this plant that differ from the published ones."""
    periods: dict[Name, Duration] = Field(default_factory=dict)
    """Sensors that convert at another pace than the plant's own."""

    @field_validator("plant")
    @classmethod
    def _known(cls, plant: str) -> str:
        try:
            plugins.load(PLANTS, plant)
        except ConfigError as error:
            raise ValueError(f"{error.problems[0].message} ({error.problems[0].hint})") from None
        return plant


class Scenario(Settings):
    """A whole simulated site."""

    scenario: Name
    seed: Annotated[int, Field(ge=0)]
    """Fixes every random number; the same seed gives the same trajectories and the same noise."""
    tick: Duration = 0.02
    """Time step of all plants."""
    truth: LocalPath | None = None
    """File that the true states are appended to, ten times a second."""
    devices: tuple[Device, ...]
    faults: tuple[Fault, ...] = ()

    @field_validator("tick")
    @classmethod
    def _ticks(cls, tick: float) -> float:
        if not 0.001 <= tick <= 0.1:
            raise ValueError("must lie between 1 ms and 100 ms")
        return tick

    @field_validator("devices")
    @classmethod
    def _some(cls, devices: tuple[Device, ...]) -> tuple[Device, ...]:
        # not a least length: that would be reported again for every device that is wrong itself
        if not devices:
            raise ValueError("must name at least one device")
        return devices

    @model_validator(mode="after")
    def _names_agree(self) -> Self:
        names = [device.device for device in self.devices]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"devices declared twice: {', '.join(twice)}")
        strangers = sorted({fault.device for fault in self.faults} - set(names))
        if strangers:
            raise ValueError(f"faults of unknown devices: {', '.join(strangers)}")
        return self
