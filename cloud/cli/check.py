"""Checking configuration files of any kind: each document by the model that its tier registered for its first key."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from importlib.metadata import EntryPoint
from pathlib import Path

from pydantic import BaseModel, ConfigDict
from rich.table import Table

from cloud.cli import tables
from wire import settings
from wire.errors import ConfigError, Problem
from wire.runtime.files import read_text
from wire.runtime.plugins import config_kinds
from wire.settings import Document


class Checked(BaseModel):
    """One document, and whether it is fine."""

    model_config = ConfigDict(frozen=True)

    file: str
    line: int
    kind: str
    name: str
    ok: bool


class Defect(BaseModel):
    """One problem, as fields."""

    model_config = ConfigDict(frozen=True)

    file: str
    line: int
    column: int
    message: str
    hint: str

    @property
    def located(self) -> Problem:
        return Problem(self.file, self.line, self.column, self.message, self.hint)


class Report(BaseModel):
    """Every document and every problem."""

    model_config = ConfigDict(frozen=True)

    documents: list[Checked]
    problems: list[Defect]


def check(paths: Iterable[Path], env: Mapping[str, str] = os.environ) -> Report:
    """Check every document of every file. Twin types are compiled; a twin is built if its type is among the files."""
    problems: list[Problem] = []
    documents = list(_documents(paths, env, problems))
    kinds = config_kinds()
    bad = set()
    for document in documents:
        found = _check(document, kinds)
        problems += found
        bad |= {id(document)} if found else set()
    twins = [document for document in documents if document.kind in ("type", "twin") and id(document) not in bad]
    for document, found in _compile(twins):
        problems += found
        bad.add(id(document))
    return Report(
        documents=[_line(document, id(document) not in bad) for document in documents], problems=_listed(problems)
    )


def files_of(path: Path) -> list[Path]:
    """The path itself, or every ``*.yaml`` under a folder in name order."""
    if not path.is_dir():
        return [path]
    found = sorted(path.rglob("*.yaml"))
    if not found:
        raise ConfigError.at(str(path), "no *.yaml file in this folder")
    return found


def table(report: Report) -> Table:
    """One row for each document."""
    shown = Table("", "kind", "name", "file", box=None, pad_edge=False)
    for item in report.documents:
        shown.add_row(tables.quality("good" if item.ok else "bad"), item.kind, item.name, f"{item.file}:{item.line}")
    return shown


def _documents(paths: Iterable[Path], env: Mapping[str, str], problems: list[Problem]) -> Iterable[Document]:
    for file in _files(paths, problems):
        try:
            yield from settings.parse(read_text(file), str(file), env)
        except ConfigError as error:
            problems.extend(error.problems)


def _files(paths: Iterable[Path], problems: list[Problem]) -> Iterable[Path]:
    for path in paths:
        try:
            yield from files_of(path)
        except ConfigError as error:
            problems.extend(error.problems)


def _check(document: Document, kinds: Mapping[str, EntryPoint]) -> tuple[Problem, ...]:
    try:
        document.load(_model(document, kinds))
    except ConfigError as error:
        return error.problems
    return ()


def _model(document: Document, kinds: Mapping[str, EntryPoint]) -> type[BaseModel]:
    if document.kind not in kinds:
        allowed = ", ".join(sorted(kinds))
        hint = f"a document begins with one of: {allowed}"
        raise ConfigError([document.problem((document.kind,), f"unknown kind `{document.kind}`", hint, on_key=True)])
    try:
        model: type[BaseModel] = kinds[document.kind].load()
    except ModuleNotFoundError as error:
        message = f"`{document.kind}` cannot be checked here: the package `{error.name}` is missing"
        raise ConfigError([document.problem((), message, "pip install 'twinline[all]'")]) from None
    return model


def _compile(documents: list[Document]) -> Iterable[tuple[Document, tuple[Problem, ...]]]:
    """Each type or twin that does not compile, with why."""
    # imported here: sympy takes a second, and most files need none of it
    from cloud.twins.compile import build_twin, compile_type
    from cloud.twins.ready_made import READY_MADE

    types = {}
    for document in documents:
        if document.kind == "type":
            try:
                compiled = compile_type(document)
                types[compiled.name] = compiled
            except ConfigError as error:
                yield document, error.problems
    for document in documents:
        if document.kind == "twin" and _type_of(document) in {*types, *READY_MADE}:
            try:
                build_twin(document, types)
            except ConfigError as error:
                yield document, error.problems


def _type_of(document: Document) -> str:
    data = document.data
    return str(data.get("of", "")).partition("@")[0] if isinstance(data, dict) else ""


def _line(document: Document, ok: bool) -> Checked:
    data = document.data
    name = data.get(document.kind) if isinstance(data, dict) else ""
    return Checked(file=document.file, line=document.line, kind=document.kind, name=str(name), ok=ok)


def _listed(problems: Iterable[Problem]) -> list[Defect]:
    return [Defect(**problem._asdict()) for problem in problems]
