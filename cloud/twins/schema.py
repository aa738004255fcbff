"""The YAML of twin types and twins, as far as this version speaks the language.

Numbers keep the unit their author wrote; ``cloud.twins.compile`` gives them meaning. Words that belong to the
language but not to this version are refused by name, so nobody believes that an alarm is watched when it is not.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, PlainValidator, Tag
from pydantic_core import PydanticCustomError

from wire.errors import BadData
from wire.points import Name, PointId, Symbol
from wire.settings import Duration, Quantity, QuantityText, Settings, quantity


def _refuse_later(_: object) -> None:
    raise PydanticCustomError("later", "belongs to the language but is not spoken by this version; leave it out")


Later = Annotated[None, PlainValidator(_refuse_later)]
"""A word that a later version will understand."""


def _amount(value: object) -> Quantity:
    """A number in the unit declared beside it, or a number with a unit of its own."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise PydanticCustomError("amount", "must be a number, such as 12, 12 kJ/K or 12 +/- 2 kJ/K")
    if not isinstance(value, str):
        return Quantity(float(value), None, "")
    try:
        return quantity(value)
    except BadData as error:
        raise PydanticCustomError("quantity", "is wrong: {detail}", {"detail": error.detail}) from None


Amount = Annotated[Quantity, PlainValidator(_amount)]
"""A number; where its unit is empty, the unit declared beside it holds."""


def _as_text(value: object) -> object:
    """A number where text may stand: what it lacks is told when it gets its meaning."""
    return repr(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


Version = Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+$")]
Bounds = tuple[float, float]


class StateItem(Settings):
    """``initial`` is ``20 +/- 5`` or ``from SENSOR``: a belief without its uncertainty is not a belief."""

    unit: str
    initial: Annotated[str, BeforeValidator(_as_text)]
    range: Bounds | None = None


class ParameterItem(Settings):
    unit: str
    value: Amount
    fit: Later = None


class InputItem(Settings):
    """Either ``from`` an actuator (its read-back point), or ``constant``, or ``initial`` and a point of its own."""

    unit: str
    source: Annotated[str | None, Field(alias="from", pattern=r"^[A-Za-z][A-Za-z0-9_]{0,62}$")] = None
    initial: Amount | None = None
    constant: Amount | None = None
    max_age: Later = None
    otherwise: Annotated[Later, Field(alias="else")] = None


class SensorItem(Settings):
    measures: str
    unit: str
    noise: QuantityText
    resolution: QuantityText | None = None
    period: Duration = 1.0
    max_age: Duration | None = None
    late: Duration = 0.0
    gate: Annotated[float, Field(ge=0.5, lt=1)] = 0.999
    faults: Later = None


class ReadbackItem(Settings):
    """What makes a written value *verified*."""

    tolerance: QuantityText
    settle: Duration
    dwell: Duration


class ActuatorItem(Settings):
    """Everything that is safe to know before commanding; nothing here has a silent default."""

    unit: str
    range: Bounds
    rate: QuantityText | None = None
    hold: Duration
    safe: QuantityText
    readback: ReadbackItem
    slot: Annotated[int, Field(ge=1, le=16)] = 8
    min_on: Later = None
    min_off: Later = None
    interlocks: Later = None
    require: Later = None
    slots: Later = None
    approve: Later = None


Offsets = Literal["default", "none"] | dict[Symbol, QuantityText]
Expressions = dict[Symbol, Annotated[str, BeforeValidator(_as_text)]]


class TypeFile(Settings):
    """One twin type: how an asset of this kind behaves. It holds no address."""

    type: Name
    version: Version
    resolution: Duration = 0.001
    horizon: Duration = 60.0
    tick: Duration = 1.0
    states: Annotated[dict[Symbol, StateItem], Field(min_length=1)]
    parameters: dict[Symbol, ParameterItem] = Field(default_factory=dict)
    inputs: dict[Symbol, InputItem] = Field(default_factory=dict)
    dynamics: Expressions
    process_noise: dict[Symbol, QuantityText]
    offsets: Offsets
    sensors: Annotated[dict[Symbol, SensorItem], Field(min_length=1)]
    actuators: dict[Symbol, ActuatorItem] = Field(default_factory=dict)
    alarms: Later = None
    relationships: Later = None
    history: Later = None
    forecast: Later = None
    access: Later = None
    tests: Later = None
    migration: Later = None


def _point(value: object) -> PointId:
    if not isinstance(value, str):
        raise PydanticCustomError("point_id", "must be a point, written site/edge/device/point")
    try:
        return PointId.parse(value)
    except BadData as error:
        raise PydanticCustomError("point_id", "is wrong: {detail}", {"detail": error.detail}) from None


PointText = Annotated[PointId, PlainValidator(_point)]


class BindActuator(Settings):
    """Where setpoints go, and where their effect is read."""

    write: PointText
    read: PointText


def _shape(value: Any) -> str:
    return "pair" if isinstance(value, dict | BindActuator) else "point"


Bound = Annotated[Annotated[PointText, Tag("point")] | Annotated[BindActuator, Tag("pair")], Discriminator(_shape)]


class Given(Settings):
    """What a ready-made type needs to know; it has an opinion on the rest (``cloud.twins.ready_made``)."""

    unit: str
    noise: QuantityText
    wander: QuantityText | None = None
    tau: Duration | None = None
    period: Duration | None = None
    tick: Duration | None = None
    horizon: Duration | None = None


class TwinFile(Settings):
    """One twin: an asset of some type, its parameters, and the points that its channels and actuators are bound to."""

    twin: Name
    of: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}(@\d+)?$")]
    given: Annotated[Given | None, Field(alias="with")] = None
    bind: dict[Symbol, Bound]
    parameters: dict[Symbol, Amount] = Field(default_factory=dict)
    mode: Literal["observe", "advise", "act"] = "observe"
