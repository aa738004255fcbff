"""Configuration: text in, checked model out, every defect at once with file, line, column and what to do.

A file holds one or more YAML documents (``wire.yaml_tree``); the first key of a document says what it is (``edge:``,
``profile:``, ``type:``). Models derive from ``Settings``. This module does no I/O; ``wire.runtime.files`` reads.
"""

from __future__ import annotations

import json
import math
import posixpath
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from types import MappingProxyType
from typing import Annotated, Any, NamedTuple, TypeVar, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    PlainSerializer,
    PlainValidator,
    ValidationError,
    ValidationInfo,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from wire.errors import BadData, ConfigError, Problem
from wire.points import NAME_FORM
from wire.yaml_tree import Data, Node, read

NAME_RULE = "lower-case letters, digits, - and _, beginning with a letter or digit"

NO_ENVIRONMENT: Mapping[str, str] = MappingProxyType({})

Loc = tuple[str | int, ...]
"""A place in a document: keys and list indices from the root."""


class Settings(BaseModel):
    """Base of every configuration model: frozen, strict, nothing unknown, nothing clamped."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Document:
    """One parsed document; ``kind`` is its first key."""

    file: str
    kind: str
    root: Node

    @property
    def line(self) -> int:
        return self.root.place.line

    @property
    def data(self) -> Data:
        """Mappings, lists and scalars without their places."""
        return self.root.data()

    def load(self, model: type[M]) -> M:
        """The document as a model; raises ConfigError with every problem."""
        context = {"directory": posixpath.dirname(self.file)}
        try:
            return model.model_validate_json(json.dumps(self.data), context=context)
        except ValidationError as error:
            details = error.errors(include_url=False)
        raise ConfigError(sorted((self._explain(detail, model) for detail in details), key=lambda problem: problem[:3]))

    def problem(self, loc: Loc, message: str, hint: str = "", *, offset: int = 0, on_key: bool = False) -> Problem:
        """A problem at a place of this document, ``offset`` characters into a text value; the nearest parent that
        exists stands in for a missing place."""
        node = self._find(loc)
        place = node.key if on_key else node.place
        column = place.column + (offset if node.exact and not on_key else 0)
        return Problem(self.file, place.line, column, message, hint)

    def _find(self, loc: Loc) -> Node:
        node = self.root
        for part in loc:
            # pydantic puts the tags of a union into its paths; they name no place in the file
            node = node.child(part) or node
        return node

    def _explain(self, detail: ErrorDetails, model: type[BaseModel]) -> Problem:
        loc, kind = detail["loc"], detail["type"]
        name = str(loc[-1]) if loc else self.kind
        if kind == "extra_forbidden":
            return self.problem(loc, f"unknown key `{name}`", _instead(name, _keys(model, loc[:-1])), on_key=True)
        if kind == "missing":
            return self.problem(loc[:-1], f"`{name}` is missing", on_key=True)
        if kind == "union_tag_invalid":
            return self._unknown_choice(loc, detail)
        if kind == "string_pattern_mismatch" and detail["ctx"]["pattern"] == NAME_FORM:
            return self.problem(loc, f"`{_path(loc)}` must be a name{self._given(loc, detail['input'])}", NAME_RULE)
        message = str(detail.get("ctx", {}).get("error", detail["msg"])).removeprefix("Input ")
        message = message.replace("should be a valid i", "must be an i").replace("should be a valid", "must be a")
        message = message.replace("should", "must")
        hint = ""
        if kind == "literal_error":
            given = str(detail["input"])
            allowed = [item.strip("'") for item in re.findall(r"'[^']*'", str(detail["ctx"]["expected"]))]
            hint = _instead(given, allowed) if get_close_matches(given, allowed) else ""
        given = "" if kind == "quantity" else self._given(loc, detail["input"])
        return self.problem(loc, f"`{_path(loc)}` {message}{given}".replace("`` ", ""), hint)

    def _unknown_choice(self, loc: Loc, detail: ErrorDetails) -> Problem:
        """A tag, such as ``kind``, that names none of the models that could stand here."""
        tag = str(detail["ctx"]["discriminator"]).strip("'")
        given = str(detail["ctx"]["tag"])
        allowed = [item.strip("' ") for item in str(detail["ctx"]["expected_tags"]).split(",")]
        return self.problem((*loc, tag), f"`{_path((*loc, tag))}` cannot be `{given}`", _instead(given, allowed))

    def _given(self, loc: Loc, value: object) -> str:
        if self._find(loc).hidden or not isinstance(value, str | int | float):
            return ""
        return f", not {json.dumps(value)}" if len(str(value)) <= 80 else ""


def parse(text: str, file: str, env: Mapping[str, str] = NO_ENVIRONMENT) -> list[Document]:
    """Every document of a file's text; ``file`` is only named in errors and as the base of relative paths.

    Raises ConfigError with every defect of the YAML itself: syntax, duplicate keys, aliases, unset variables.
    """
    documents, problems = [], []
    for root in read(text, file, env):
        if root.value is None:
            continue
        if not isinstance(root.value, dict) or not root.value:
            problems.append(
                Problem(file, root.place.line, root.place.column, "a document must be a list of `key: value`")
            )
            continue
        documents.append(Document(file, next(iter(root.value)), root))
    if problems or not documents:
        raise ConfigError(problems or [Problem(file, 1, 1, "the file says nothing")])
    return documents


def parse_one(text: str, file: str, env: Mapping[str, str] = NO_ENVIRONMENT) -> Document:
    """The only document of a file's text."""
    documents = parse(text, file, env)
    if len(documents) > 1:
        raise ConfigError.at(file, "only one document is expected here", line=documents[1].line)
    return documents[0]


def _path(loc: Loc) -> str:
    return ".".join(str(part) for part in loc)


def _instead(name: str, allowed: Sequence[str]) -> str:
    close = get_close_matches(name, allowed, n=1)
    if close:
        return f"did you mean `{close[0]}`?"
    return f"allowed here: {', '.join(allowed)}" if allowed else ""


def _keys(model: type[BaseModel], loc: Loc) -> list[str]:
    """Names of the fields that a mapping at ``loc`` may have, as far as the annotations tell."""
    models = [model]
    for part in loc:
        inner = [found for each in models if part in _fields(each) for found in _models(_fields(each)[part])]
        models = inner or [each for each in models if _tagged(each, part)] or models
    return list(dict.fromkeys(str(name) for each in models for name in _fields(each)))


def _fields(model: type[BaseModel]) -> dict[str | int, Any]:
    """Annotations by the name that a file uses."""
    return {info.alias or name: info.annotation for name, info in model.model_fields.items()}


def _tagged(model: type[BaseModel], tag: str | int) -> bool:
    return any(tag in get_args(annotation) for annotation in _fields(model).values())


def _models(annotation: Any) -> list[type[BaseModel]]:
    """Every model that an annotation mentions."""
    own = [annotation] if isinstance(annotation, type) and issubclass(annotation, BaseModel) else []
    return own + [found for inner in get_args(annotation) for found in _models(inner)]


class Quantity(NamedTuple):
    """A number as people write it: ``12 kW``, ``20 +/- 5``, ``12 +/- 2 kJ/K``; ``unit`` may be empty."""

    value: float
    sigma: float | None
    unit: str


_NUMBER = r"(?>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)"
_UNIT = r"(?:1\s*/|[^\d\s.+-]).*?"
_QUANTITY = re.compile(rf"\s*({_NUMBER})\s*(?:(?:\+/-|±)\s*({_NUMBER})\s*)?({_UNIT})?\s*\Z", re.ASCII)
_SECONDS = MappingProxyType({"us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86_400.0})
_BYTES = MappingProxyType(
    {"B": 1, "kB": 1000, "MB": 1000**2, "GB": 1000**3, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
)


def quantity(text: str) -> Quantity:
    """Read ``value [+/- sigma] [unit]``; raises BadData("quantity")."""
    match = _QUANTITY.match(text)
    if match is None:
        raise BadData("quantity", f"{text!r} is not a number with a unit, such as 12 kW or 20 +/- 5 degC")
    value, sigma = float(match[1]), None if match[2] is None else float(match[2])
    if not math.isfinite(value) or (sigma is not None and not 0 <= sigma < math.inf):
        raise BadData("quantity", f"{text!r}: the number must be finite and its sigma not negative")
    return Quantity(value, sigma, match[3] or "")


def duration(text: str) -> float:
    """Seconds in ``100 ms``, ``5 min``, ``1 h``; raises BadData("duration")."""
    return _measured(text, _SECONDS, "duration", "100 ms or 5 min")


def size(text: str) -> int:
    """Bytes in ``64 MiB`` or ``500 MB``; raises BadData("size")."""
    return round(_measured(text, _BYTES, "size", "64 MiB or 2 GB"))


def _measured(text: str, units: Mapping[str, float], kind: str, example: str) -> float:
    try:
        value, sigma, unit = quantity(text)
    except BadData:
        value, sigma, unit = 0.0, None, ""
    if unit not in units or sigma is not None or value < 0:
        raise BadData(kind, f"{text!r} is not a {kind}, such as {example} ({', '.join(units)})")
    return value * units[unit]


def _reader(read_text: Callable[[str], Any], example: str) -> PlainValidator:
    """A field that is written as text with a unit; plain numbers are refused, because nobody can tell their unit."""

    def check(value: object) -> Any:
        if not isinstance(value, str):
            raise PydanticCustomError(
                "unit_missing", "must be a number with its unit, such as {example}", {"example": example}
            )
        try:
            return read_text(value)
        except BadData as error:
            raise PydanticCustomError("quantity", "is wrong: {detail}", {"detail": error.detail}) from None

    return PlainValidator(check, json_schema_input_type=str)


def _resolve(path: str, info: ValidationInfo) -> str:
    directory = info.context["directory"] if info.context else ""
    return posixpath.normpath(posixpath.join(directory, path))


Duration = Annotated[float, _reader(duration, "100 ms")]
"""Seconds, written ``100 ms``."""
Size = Annotated[int, _reader(size, "64 MiB")]
"""Bytes, written ``64 MiB``."""
QuantityText = Annotated[
    Quantity, _reader(quantity, "12 kW"), PlainSerializer(list, return_type=list[float | str | None])
]
"""A number with the unit that the author wrote, not yet converted."""
LocalPath = Annotated[str, AfterValidator(_resolve)]
"""A path, relative to the file that names it."""
