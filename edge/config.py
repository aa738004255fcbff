"""The edge's two kinds of file: the edge itself with its devices, and device profiles.

A *profile* says once where every point of a device model is and what it means; a *device* is one instance of it. A
point carries its own protocol's address beside its meaning, so both models are completed by the driver that ``kind``
names: nothing of a driver that is not used gets imported.
"""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import Field, PlainValidator, ValidationInfo, field_validator, model_validator

from edge import completing
from wire.points import Name
from wire.runtime.mqtt import MqttConfig
from wire.settings import Duration, LocalPath, QuantityText, Settings, Size

Range = tuple[float, float]


class Write(Settings):
    """What may be written to a point, and how the edge makes sure that it happened; values in the point's unit."""

    range: Range
    """Lowest and highest value ever written; nothing is clamped, anything outside is refused."""
    safe: float
    """Written when the lease of a setpoint ends without renewal."""
    rate: QuantityText | None = None
    """Greatest change for each second since the last one, such as ``0.5 V/s``, in the point's unit."""
    readback: Name | None = None
    """Point that shows the effect; the written point itself if not named."""
    tolerance: Annotated[float, Field(ge=0)] = 0.0
    settle: Duration = 1.0
    """Longest time until the read-back must have come within tolerance for good."""
    dwell: Duration = 0.2
    """How long it must be seen to stay there."""
    every: Duration = 0.0
    """Least time between two different values, for relays and contactors."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        low, high = self.range
        if low > high:
            raise ValueError(f"range {low} .. {high} is upside down")
        if not low <= self.safe <= high:
            raise ValueError(f"safe value {self.safe} lies outside the range {low} .. {high}")
        if self.rate is not None and (self.rate.value <= 0 or self.rate.sigma is not None):
            raise ValueError("rate must be one number above zero")
        return self


class Point(Settings):
    """One point as every protocol sees it; the address fields of the protocol stand beside these."""

    point: Name
    unit: str = ""
    range: Range | None = None
    """Values outside are reported as bad/range, never as values."""
    read: bool = True
    """False: never polled, only written and read back."""
    write: Write | None = None

    @model_validator(mode="after")
    def _units_agree(self) -> Self:
        if self.range and self.range[0] > self.range[1]:
            raise ValueError(f"range {self.range[0]} .. {self.range[1]} is upside down")
        rate = self.write.rate if self.write else None
        if rate is not None and rate.unit != f"{self.unit or '1'}/s":
            raise ValueError(f"rate is in {rate.unit!r}, must be in '{self.unit or '1'}/s': the edge converts no units")
        return self


class Profile(Settings):
    """Every point of one device model. Address fields written at the top are the defaults of all points."""

    profile: Name
    kind: Name
    points: tuple[Point, ...]

    @model_validator(mode="before")
    @classmethod
    def _spread_defaults(cls, data: Any) -> Any:
        return completing.spread_defaults(data, set(cls.model_fields))

    @field_validator("kind")
    @classmethod
    def _known(cls, kind: str) -> str:
        completing.driver(kind)
        return kind

    @field_validator("points", mode="wrap")
    @classmethod
    def _with_addresses(cls, value: Any, _handler: Any, info: ValidationInfo) -> tuple[Point, ...]:
        if "kind" not in info.data:
            return ()
        return completing.check_all(completing.complete(Point, info.data["kind"], "Address"), value, info)

    @model_validator(mode="after")
    def _names_agree(self) -> Self:
        names = [point.point for point in self.points]
        if not names:
            raise ValueError("a profile needs at least one point")
        _refuse_twice(names)
        for point in self.points:
            if point.write and point.write.readback and point.write.readback not in names:
                raise ValueError(f"{point.point}: read-back {point.write.readback!r} is not a point of this profile")
        return self


class Device(Settings):
    """One device: its profile and its rhythm; the driver's own settings stand beside them."""

    device: Name
    kind: Name
    profile: LocalPath
    period: Duration = 1.0
    """Time between two polls; a device that speaks by itself is called stale after ten of them."""


def _device(value: Any, info: ValidationInfo) -> Device:
    kind = value.get("kind") if isinstance(value, dict) else None
    model = completing.complete(Device, kind, "Config") if isinstance(kind, str) else Device
    device: Device = completing.check(model, value, info)
    return device


class EdgeConfig(Settings):
    """One edge agent."""

    edge: Name
    site: Name
    gateway: Name
    state: LocalPath
    """Folder of the outbox and of what else must survive a restart."""
    link: MqttConfig
    devices: tuple[Annotated[Device, PlainValidator(_device)], ...]
    trust: LocalPath | None = None
    """File of the keys that may sign setpoints; without one every setpoint is refused."""
    linger: Duration = 0.02
    """How long a commit gathers readings: flash wear against what a power cut can lose."""
    quota: Size = 1 << 30
    max_skew: Duration = 300.0
    """A source's stamp farther than this from the edge's clock is replaced, with quality uncertain/clock."""
    setpoint_skew: Duration = 2.0
    """How far a signer's clock may be ahead of the edge's."""

    @field_validator("devices")
    @classmethod
    def _unique(cls, devices: tuple[Device, ...]) -> tuple[Device, ...]:
        if not devices:
            raise ValueError("must name at least one device")
        _refuse_twice([device.device for device in devices])
        return devices


def _refuse_twice(names: list[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"declared twice: {', '.join(twice)}")
