"""What applying some files would change: everything is validated before anything is written. Pure, but slow.

Types are compiled first, then every twin that is new, changed, or of a changed type, so that a type can never be
changed under a twin that no longer fits it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Literal, NamedTuple

from cloud.twins.compile import build_twin, compile_type
from cloud.twins.model import Twin, TwinType
from cloud.twins.schema import TwinFile
from wire.errors import ConfigError, Problem
from wire.points import PointId
from wire.settings import Document, parse

Kind = Literal["type", "twin"]
Key = tuple[Kind, str]


class SourceText(NamedTuple):
    """One file as its author wrote it; ``file`` is named in problems."""

    file: str
    text: str


@dataclass(frozen=True, slots=True)
class Stored:
    """One document of the registry, in its newest revision."""

    kind: Kind
    name: str
    revision: int
    text: str

    @property
    def digest(self) -> str:
        """Names the text; the same text is the same revision."""
        return sha256(self.text.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Change:
    """What applying does to one type or twin; ``revision`` is the one it has afterwards."""

    kind: Kind
    name: str
    action: Literal["created", "changed", "unchanged"]
    revision: int


@dataclass(frozen=True)
class Catalogue:
    """Everything that is registered, compiled."""

    stored: Mapping[Key, Stored] = field(default_factory=dict)
    types: Mapping[str, TwinType] = field(default_factory=dict)
    twins: Mapping[str, Twin] = field(default_factory=dict)


class Plan(NamedTuple):
    """The catalogue after applying, what changed, and what has to be written."""

    catalogue: Catalogue
    changes: list[Change]
    writes: list[Stored]


def plan(current: Catalogue, sources: Sequence[SourceText]) -> Plan:
    """Work out what the sources change; raises ConfigError with every problem of every file."""
    problems: list[Problem] = []
    changes, writes = [], []
    documents: dict[Key, Document] = {}
    for document, text in _documents(sources, problems):
        key = _identity(document, problems)
        if key is None:
            continue
        if key in documents:
            problems.append(document.problem((), f"{key[0]} {key[1]} is given twice"))
            continue
        documents[key] = document
        change, newest = _compare(key, text, current.stored.get(key))
        changes.append(change)
        writes += [newest] if change.action != "unchanged" else []
    stored = {**current.stored, **{(item.kind, item.name): item for item in writes}}
    fresh = {(item.kind, item.name) for item in writes}
    types = _types(current, stored, fresh, documents, problems)
    twins = _twins(current, stored, fresh, documents, types, problems)
    problems += _commanded_twice(twins, documents)
    if problems:
        raise ConfigError(problems)
    return Plan(Catalogue(stored, types, twins), changes, writes)


def restore(stored: Iterable[Stored]) -> Catalogue:
    """The catalogue of what was stored before; raises ConfigError if this version cannot compile it any more."""
    sources = [SourceText(f"registry/{item.kind}/{item.name}", item.text) for item in stored]
    found = plan(Catalogue(), sources).catalogue if sources else Catalogue()
    return Catalogue({(item.kind, item.name): item for item in stored}, found.types, found.twins)


def _documents(sources: Sequence[SourceText], problems: list[Problem]) -> list[tuple[Document, str]]:
    """Each document with its own text; line numbers are those of the file."""
    found = []
    for source in sources:
        for line, text in _pieces(source.text):
            try:
                parsed = parse("\n" * line + text, source.file)
            except ConfigError as error:
                problems.extend(error.problems)
                continue
            found += [(document, text) for document in parsed]
    return found


def _pieces(text: str) -> list[tuple[int, str]]:
    """The documents of a file as (line offset, text); ``---`` at the start of a line always begins a new one."""
    pieces, line = [], 0
    for part in re.split(r"^---[ \t]*$\n?", text, flags=re.MULTILINE):
        if any(row.strip() and not row.lstrip().startswith("#") for row in part.splitlines()):
            blank = len(part) - len(part.lstrip("\n"))
            pieces.append((line + blank, part.strip("\n") + "\n"))
        line += part.count("\n") + 1
    return pieces or [(0, text)]


def _identity(document: Document, problems: list[Problem]) -> Key | None:
    data = document.data
    name = data.get(document.kind) if isinstance(data, dict) else None
    if document.kind not in ("type", "twin"):
        hint = "only documents that begin with `type:` or `twin:` are registered"
        problems.append(document.problem((document.kind,), f"`{document.kind}` is not registered", hint, on_key=True))
        return None
    if not isinstance(name, str):
        problems.append(document.problem((document.kind,), f"`{document.kind}` must be a name"))
        return None
    return ("type" if document.kind == "type" else "twin"), name


def _compare(key: Key, text: str, before: Stored | None) -> tuple[Change, Stored]:
    if before is None:
        return Change(*key, "created", 1), Stored(*key, 1, text)
    if before.text == text:
        return Change(*key, "unchanged", before.revision), before
    return Change(*key, "changed", before.revision + 1), Stored(*key, before.revision + 1, text)


def _types(
    current: Catalogue,
    stored: Mapping[Key, Stored],
    fresh: set[Key],
    documents: Mapping[Key, Document],
    problems: list[Problem],
) -> dict[str, TwinType]:
    types = dict(current.types)
    for kind, name in stored:
        if kind == "type" and (kind, name) in fresh:
            try:
                types[name] = compile_type(documents[kind, name])
            except ConfigError as error:
                problems.extend(error.problems)
                types.pop(name, None)
    return types


def _twins(
    current: Catalogue,
    stored: Mapping[Key, Stored],
    fresh: set[Key],
    documents: Mapping[Key, Document],
    types: Mapping[str, TwinType],
    problems: list[Problem],
) -> dict[str, Twin]:
    twins = {}
    broken = {name for kind, name in fresh if kind == "type" and name not in types}
    for (kind, name), item in stored.items():
        if kind != "twin":
            continue
        known = current.twins.get(name)
        if known is not None and (kind, name) not in fresh and types.get(known.type.name, known.type) is known.type:
            twins[name] = known
            continue
        document = documents.get((kind, name)) or parse(item.text, f"registry/twin/{name}")[0]
        try:
            if _of(document) in broken:
                document.load(TwinFile)
            else:
                twins[name] = build_twin(document, types)
        except ConfigError as error:
            problems.extend(error.problems)
    return twins


def _commanded_twice(twins: Mapping[str, Twin], documents: Mapping[Key, Document]) -> list[Problem]:
    """A point that two actuators would write: whoever is refused, the other would undo it."""
    problems, owners = [], dict[PointId, str]()
    for name, twin in sorted(twins.items(), key=lambda item: ("twin", item[0]) in documents):
        for actuator, binding in twin.actuators.items():
            owner = owners.setdefault(binding.write, f"{name}'s {actuator}")
            if owner != f"{name}'s {actuator}" and ("twin", name) in documents:
                message = f"{binding.write} is written already, by {owner}"
                problems.append(documents["twin", name].problem(("bind", actuator), message))
    return problems


def _of(document: Document) -> str:
    """The name of the type that a twin's document asks for, without its version."""
    data = document.data
    wanted = data.get("of") if isinstance(data, dict) else None
    return str(wanted).partition("@")[0]
