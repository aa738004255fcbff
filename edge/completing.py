"""Completes the edge's settings with what only one driver knows.

A driver's ``Address`` and ``Config`` share one mapping with the general fields, so a point or a device is written
flat: ``{point: h1, unit: cm, table: input, address: 0}``.
"""

from __future__ import annotations

import json
from difflib import get_close_matches
from functools import cache
from types import ModuleType
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError, ValidationInfo, create_model
from pydantic_core import InitErrorDetails, PydanticCustomError

from wire.errors import ConfigError
from wire.runtime import plugins

M = TypeVar("M", bound=BaseModel)


def driver(kind: str) -> ModuleType:
    """The driver module of that kind; ValueError names the kinds there are."""
    try:
        return plugins.load("edge.drivers", kind)
    except ConfigError as error:
        problem = error.problems[0]
        raise ValueError(f"{problem.message}; {problem.hint}") from None


@cache
def complete(base: type[M], kind: str, part: Literal["Address", "Config"]) -> type[M]:
    """``base`` with the driver's own fields beside it; instances are both."""
    own: type[BaseModel] = getattr(driver(kind), part)
    return create_model(f"{kind.capitalize()}{base.__name__}", __base__=(base, own))  # type: ignore[arg-type]


def spread_defaults(data: Any, own: set[str]) -> Any:
    """A profile's data with the address fields from its top moved into each point that does not set them."""
    points = data.get("points") if isinstance(data, dict) else None
    if not isinstance(points, list) or not isinstance(data.get("kind"), str):
        return data
    try:
        fields = driver(data["kind"]).Address.model_fields
    except ValueError:
        return data
    shared = {key: value for key, value in data.items() if key in fields and key not in own}
    rest = {key: value for key, value in data.items() if key not in shared}
    return rest | {"points": [shared | point if isinstance(point, dict) else point for point in points]}


def check(model: type[M], value: Any, info: ValidationInfo) -> M:
    """Validate as the surrounding document is validated; unknown keys get a hint from the completed model."""
    try:
        return model.model_validate_json(json.dumps(value), context=info.context)
    except ValidationError as error:
        raise _with_hints(error, list(model.model_fields)) from None


def check_all(model: type[M], value: Any, info: ValidationInfo) -> tuple[M, ...]:
    """Validate a list, reporting the problems of every item."""
    try:
        return TypeAdapter(tuple[model, ...]).validate_json(json.dumps(value), context=info.context)  # type: ignore[valid-type]
    except ValidationError as error:
        raise _with_hints(error, list(model.model_fields)) from None


def _with_hints(error: ValidationError, allowed: list[str]) -> ValidationError:
    """The same errors, where an unknown key of the completed model names the closest known one."""

    def explain(detail: Any) -> InitErrorDetails:
        loc = detail["loc"]
        kind: str | PydanticCustomError = detail["type"]
        if detail["type"] == "extra_forbidden" and len([part for part in loc if isinstance(part, str)]) == 1:
            close = get_close_matches(str(loc[-1]), allowed, n=1)
            hint = f"did you mean `{close[0]}`?" if close else f"allowed here: {', '.join(allowed)}"
            kind = PydanticCustomError("unknown_key", "is an unknown key ({hint})", {"hint": hint})
        elif detail["type"] not in ("missing", "extra_forbidden", "literal_error", "string_pattern_mismatch"):
            kind = PydanticCustomError(detail["type"], "{text}", {"text": detail["msg"].removeprefix("Value error, ")})
        return InitErrorDetails(type=kind, loc=loc, input=detail["input"], ctx=detail.get("ctx", {}))

    # a default that depends on a field that is wrong is no problem of its own
    details = [detail for detail in error.errors() if detail["type"] != "default_factory_not_called"]
    return ValidationError.from_exception_data(error.title, [explain(detail) for detail in details])
