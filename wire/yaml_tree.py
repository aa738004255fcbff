"""YAML 1.2 text to a tree that remembers where each value stands.

Only the plain part of YAML is spoken: mappings, lists and scalars. Anchors, aliases, tags, merge keys and duplicate
keys are refused, so what a person reads is what the program gets. Keys are always text. ``${NAME}`` and
``${NAME:-default}`` are replaced inside a scalar, after the structure is known: a variable never adds structure. A
scalar that is nothing but a reference may become a number even in quotes, which ``{port: "${PORT}"}`` needs.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, StreamMark, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
)

from wire.errors import ConfigError, Problem

MAX_CHARACTERS = 1 << 20
MAX_DEPTH = 24

Scalar = str | int | float | bool | None
Data = Scalar | list["Data"] | dict[str, "Data"]
"""What JSON can say."""


class _Refused(Exception):
    def __init__(self, problem: Problem) -> None:
        self.problem = problem


@dataclass(frozen=True, slots=True)
class Place:
    """Line and column as an editor counts them, from 1."""

    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Node:
    """One value with its place. ``key`` is the place of the key (or of the value itself, in a list).

    ``exact``: characters of ``value`` stand in the file one by one from ``place`` on. ``hidden``: the text came from
    the environment and must not be shown.
    """

    value: Scalar | list[Node] | dict[str, Node]
    place: Place
    key: Place
    exact: bool = False
    hidden: bool = False

    def data(self) -> Data:
        """The value without places."""
        if isinstance(self.value, dict):
            return {key: node.data() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.data() for node in self.value]
        return self.value

    def child(self, part: str | int) -> Node | None:
        """The value under a key or at an index."""
        if isinstance(self.value, dict) and isinstance(part, str):
            return self.value.get(part)
        if isinstance(self.value, list) and isinstance(part, int) and 0 <= part < len(self.value):
            return self.value[part]
        return None


def read(text: str, file: str, env: Mapping[str, str]) -> list[Node]:
    """Every document of the text; raises ConfigError with all defects that can be told apart."""
    if len(text) > MAX_CHARACTERS:
        raise ConfigError.at(file, f"{len(text)} characters, at most {MAX_CHARACTERS}")
    reader = _Reader(file, env)
    documents: list[Node] = []
    try:
        events: Iterator[Event] = YAML(typ="safe", pure=True).parse(text)
        for event in events:
            if isinstance(event, DocumentStartEvent):
                documents.append(reader.node(next(events), events, 0))
            elif isinstance(event, StreamEndEvent):
                break
    except MarkedYAMLError as error:
        reader.problems.append(_syntax_problem(error, file, text))
    except YAMLError as error:
        reader.problems.append(Problem(file, 1, 1, str(error).splitlines()[0]))
    except _Refused as refused:
        reader.problems.append(refused.problem)
    if reader.problems:
        raise ConfigError(sorted(set(reader.problems), key=lambda problem: problem[:3]))
    return documents


def _syntax_problem(error: MarkedYAMLError, file: str, text: str) -> Problem:
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    lines = text.splitlines()
    hint = ""
    if 0 < line <= len(lines) and "${" in lines[line - 1]:
        hint = 'inside [ ] or { } a reference needs quotes: "${NAME}"'
    return Problem(file, line, column, error.problem or error.context or "not YAML", hint)


@dataclass(slots=True)
class _Reader:
    """Builds nodes from parser events and collects what is wrong on the way."""

    file: str
    env: Mapping[str, str]
    problems: list[Problem] = field(default_factory=list)

    def node(self, event: Event, events: Iterator[Event], depth: int) -> Node:
        place = _place(event.start_mark)
        if depth > MAX_DEPTH:
            raise _Refused(Problem(self.file, place.line, place.column, f"nested deeper than {MAX_DEPTH} levels"))
        self._plain(event, place)
        if isinstance(event, MappingStartEvent):
            return Node(self._mapping(events, depth), place, place)
        if isinstance(event, SequenceStartEvent):
            return Node(self._sequence(events, depth), place, place)
        if isinstance(event, ScalarEvent):
            return self._scalar(event, place)
        return Node(None, place, place)

    def _plain(self, event: Event, place: Place) -> None:
        if (anchor := getattr(event, "anchor", None)) is not None:
            what = f"alias *{anchor}" if isinstance(event, AliasEvent) else f"anchor &{anchor}"
            self._refuse(place, what, "write the value out; anchors and aliases are not used here")
        if (tag := getattr(event, "tag", None)) is not None:
            self._refuse(place, f"tag {tag}", "tags are not used here")

    def _mapping(self, events: Iterator[Event], depth: int) -> dict[str, Node]:
        found: dict[str, Node] = {}
        for event in events:
            if isinstance(event, MappingEndEvent):
                break
            place = _place(event.start_mark)
            if isinstance(event, ScalarEvent):
                self._plain(event, place)
                key = event.value
            else:
                key = ""
                self.node(event, events, depth + 1)
                self._refuse(place, "this key is not plain text")
            value = self.node(next(events), events, depth + 1)
            if key in found:
                first = found[key].key
                self._refuse(place, f"key `{key}` appears twice", f"first in line {first.line}")
            elif key == "<<":
                self._refuse(place, "merge key <<", "write the values out")
            else:
                found[key] = replace(value, key=place)
        return found

    def _sequence(self, events: Iterator[Event], depth: int) -> list[Node]:
        found: list[Node] = []
        for event in events:
            if isinstance(event, SequenceEndEvent):
                break
            found.append(self.node(event, events, depth + 1))
        return found

    def _scalar(self, event: ScalarEvent, place: Place) -> Node:
        text, hidden = self._substitute(event.value, place)
        quoted = event.style is not None
        one_line = event.start_mark.line == event.end_mark.line
        width = event.end_mark.column - event.start_mark.column - (2 if quoted else 0)
        exact = one_line and not hidden and width == len(text)
        start = Place(place.line, place.column + 1) if exact and quoted else place
        literal = quoted and not _REFERENCE.fullmatch(event.value)
        return Node(text if literal else resolve(text), start, place, exact, hidden)

    def _substitute(self, text: str, place: Place) -> tuple[str, bool]:
        def value(match: re.Match[str]) -> str:
            name, default = match["name"], match["default"]
            found = self.env.get(name) or default
            if found is None:
                self._refuse(place, f"environment variable {name} is not set", f"or write ${{{name}:-default}}")
                return ""
            return found

        replaced = _REFERENCE.sub(value, text)
        return replaced, replaced != text

    def _refuse(self, place: Place, message: str, hint: str = "") -> None:
        self.problems.append(Problem(self.file, place.line, place.column, message, hint))


_REFERENCE = re.compile(r"\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^{}]*))?\}")
_WORDS: Mapping[str, Scalar] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), math.nan),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), math.inf),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), -math.inf),
}
_INT = re.compile(r"[-+]?[0-9]{1,4000}\Z")
_BASED = re.compile(r"0o[0-7]+\Z|0x[0-9a-fA-F]+\Z")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z")


def resolve(text: str) -> Scalar:
    """The value of an unquoted scalar (YAML 1.2.2, section 10.3.2, the core schema)."""
    if text in _WORDS:
        return _WORDS[text]
    if _INT.match(text):
        return int(text)
    if _BASED.match(text):
        return int(text, 0)
    return float(text) if _FLOAT.match(text) else text


def _place(mark: StreamMark) -> Place:
    return Place(mark.line + 1, mark.column + 1)
