"""Documents to compiled twin types and twins. Pure, but slow: symbolic mathematics takes some 0.1 s a type."""

# mypy: allow-untyped-calls
from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass
from hashlib import sha256
from typing import Any, NamedTuple

import numpy as np
import sympy as sp

from cloud.twins.define import NS, Definitions, define
from cloud.twins.findings import Findings, dimension_of, in_document, per_time
from cloud.twins.lower import lower
from cloud.twins.model import Binding, Twin, TwinType
from cloud.twins.observability import unobservable
from cloud.twins.ready_made import READY_MADE, ready_made
from cloud.twins.schema import BindActuator, TwinFile, TypeFile
from cloud.twins.symbolic import Meaning, Names, translate
from wire.expressions import Expression, Flaw, parse
from wire.points import PointId
from wire.settings import Document, Loc
from wire.units import Dimension

NOTHING: sp.Expr = sp.Integer(0)


def compile_type(document: Document) -> TwinType:
    """Compile a ``type:`` document; raises ConfigError with every problem."""
    file = document.load(TypeFile)
    findings = Findings(in_document(document))
    if file.type in READY_MADE:
        findings.add(("type",), f"`{file.type}` is the name of a ready-made type", "choose another name")
    return _compile(file, findings)


def build_twin(document: Document, types: Mapping[str, TwinType]) -> Twin:
    """Build a ``twin:`` document on one of ``types`` (by name) or a ready-made type; raises ConfigError."""
    file = document.load(TwinFile)
    findings = Findings(in_document(document))
    name, _, major = file.of.partition("@")
    if name in READY_MADE:
        # a defect of a ready-made type can only come from what it was given
        given = Findings(lambda loc, message, hint, offset: document.problem(("with", *loc[-1:]), message, hint))
        kind = _compile(ready_made(name, file.given, given), given)
    elif name in types:
        kind = types[name]
        if file.given is not None:
            findings.add(("with",), f"`with` is for the ready-made types: {', '.join(READY_MADE)}")
    else:
        findings.add(("of",), f"no type is called {name}", f"there are {', '.join(sorted({*types, *READY_MADE}))}")
        raise findings.error()
    if major and kind.version.partition(".")[0] != major:
        findings.add(("of",), f"{name} is at version {kind.version}")
    parameters = _parameters(file, kind, findings)
    channels, actuators = _bindings(file, kind, findings)
    findings.settle()
    return Twin(file.twin, kind, parameters, channels, actuators, file.mode)


class _Equations(NamedTuple):
    """Trees as written, and their meaning in SI."""

    trees: list[Expression]
    rates: list[sp.Expr]
    measures: list[sp.Expr]


def _compile(file: TypeFile, findings: Findings) -> TwinType:
    for word in ("resolution", "horizon", "tick"):
        if round(getattr(file, word) * NS) <= 0:
            findings.add((word,), "must be above zero")
    defined = define(file, findings)
    names, columns = _names(defined)
    equations = _equations(file, defined, names, findings)
    findings.settle()
    kind = _lowered(file, defined, equations, columns)
    if hidden := unobservable(kind):
        findings.add(
            ("sensors",), f"no sensor can tell {', '.join(hidden)}", "measure more, or believe in fewer states"
        )
    findings.settle()
    return kind


def _names(defined: Definitions) -> tuple[Names, list[sp.Symbol]]:
    """What equations may name, and the order of columns: states, inputs, parameters."""
    units = {item.name: item.unit for item in defined.states}
    units |= {item.name: item.unit for item in defined.inputs}
    units |= {item.name: item.unit for item in defined.parameters}
    columns = [sp.Symbol(name, real=True) for name in units]
    pairs = zip(columns, units.items(), strict=True)
    return {name: Meaning(symbol, dimension_of(unit)) for symbol, (name, unit) in pairs}, columns


def _equations(file: TypeFile, defined: Definitions, names: Names, findings: Findings) -> _Equations:
    found = _Equations([], [], [])
    for name in file.dynamics.keys() - file.states.keys():
        findings.add(("dynamics", name), f"no state is called {name}")
    declared, offsets = defined.states[: len(file.states)], defined.states[len(file.states) :]
    pushed = {offset.name.removesuffix("_offset"): names[offset.name].value for offset in offsets}
    for state in declared:
        if state.name not in file.dynamics:
            findings.add(("dynamics",), f"`{state.name}` is missing", "write 0 for a state that only wanders")
            continue
        loc: Loc = ("dynamics", state.name)
        rate = _expression(file.dynamics[state.name], loc, per_time(state.unit), names, findings, found.trees)
        found.rates.append(rate + pushed.get(state.name, NOTHING))
    found.rates.extend(NOTHING for _ in offsets)
    for sensor in defined.sensors:
        loc = ("sensors", sensor.name, "measures")
        text = file.sensors[sensor.name].measures
        found.measures.append(_expression(text, loc, dimension_of(sensor.unit), names, findings, found.trees))
    return found


def _expression(
    text: str, loc: Loc, dimension: Dimension | None, names: Names, findings: Findings, trees: list[Expression]
) -> sp.Expr:
    try:
        tree = parse(text)
        meaning = translate(tree, names)
    except Flaw as flaw:
        findings.add(loc, flaw.detail, offset=flaw.at)
        return NOTHING
    if None not in (dimension, meaning.dimension) and meaning.dimension != dimension:
        findings.add(loc, f"this is in {meaning.dimension}, but {dimension} is needed")
    trees.append(tree)
    return meaning.value


def _lowered(file: TypeFile, defined: Definitions, equations: _Equations, columns: Sequence[sp.Symbol]) -> TwinType:
    n, k = len(defined.states), len(defined.inputs)
    x, u = columns[:n], columns[n : n + k]
    rates, measures = sp.Array(equations.rates), sp.Array(equations.measures)
    F, B, H = _jacobian(rates, x), _jacobian(rates, u), _jacobian(measures, x)
    moving = set(x) | set(u)
    return TwinType(
        name=file.type,
        version=file.version,
        hash=_hash(file, defined, equations.trees),
        resolution_ns=round(file.resolution * NS),
        horizon_ns=round(file.horizon * NS),
        tick_ns=round(file.tick * NS),
        linear=not any(entry.free_symbols & moving for matrix in (F, B, H) for entry in sp.flatten(matrix)),
        states=defined.states,
        parameters=defined.parameters,
        inputs=defined.inputs,
        sensors=defined.sensors,
        actuators=defined.actuators,
        process_noise=np.array(defined.process_noise),
        rates=lower(rates, columns),
        rates_jacobian=lower(F, columns),
        input_jacobian=lower(B, columns),
        measure=lower(measures, columns),
        measure_jacobian=lower(H, columns),
    )


def _jacobian(values: sp.NDimArray, by: Sequence[sp.Symbol]) -> sp.NDimArray:
    """Exact derivatives, shape (values, by)."""
    rows = [sp.diff(value, symbol) for value in values for symbol in by]
    return sp.MutableDenseNDimArray(rows, (len(values), len(by)))


def _hash(file: TypeFile, defined: Definitions, trees: Sequence[Expression]) -> str:
    """Names the model by everything that can change a number, and by nothing else: not by layout or comments."""
    times = [round(value * NS) for value in (file.resolution, file.horizon, file.tick)]
    declared = [[_plain(item) for item in group] for group in defined]
    content = [file.type, file.version, times, declared, [_canonical(tree) for tree in trees]]
    return sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _plain(item: object) -> Any:
    """A declaration without its unit: the numbers are in SI already."""
    if not is_dataclass(item) or isinstance(item, type):
        return item
    return {name: value for name, value in asdict(item).items() if name != "unit"}


def _canonical(node: object) -> Any:
    """A tree as plain data, without its columns."""
    if isinstance(node, tuple):
        return [_canonical(part) for part in node]
    if not is_dataclass(node):
        return node
    parts = [_canonical(getattr(node, item.name)) for item in fields(node) if item.name != "at"]
    return [type(node).__name__, *parts]


def _parameters(file: TwinFile, kind: TwinType, findings: Findings) -> np.ndarray[Any, np.dtype[np.float64]]:
    known = {item.name: item for item in kind.parameters}
    for name in file.parameters.keys() - known.keys():
        hint = f"{kind.name} has {', '.join(known) or 'none'}"
        findings.add(("parameters", name), f"no parameter is called {name}", hint)
    values = [
        findings.level(file.parameters[name], item.unit, ("parameters", name))
        if name in file.parameters
        else item.value
        for name, item in known.items()
    ]
    return np.array(values, dtype=np.float64)


def _bindings(file: TwinFile, kind: TwinType, findings: Findings) -> tuple[dict[str, PointId], dict[str, Binding]]:
    """Every channel and actuator to its points; an input that comes from an actuator uses its read-back point."""
    actuators: dict[str, Binding] = {}
    channels: dict[str, PointId] = {}
    pairs = {item.name for item in kind.actuators}
    sources = {item.name: item.actuator for item in kind.inputs if item.actuator}
    own = [name for name in kind.channels if name not in sources]
    constants = {item.name for item in kind.inputs if item.constant}
    for name, bound in file.bind.items():
        loc: Loc = ("bind", name)
        if name in pairs and isinstance(bound, BindActuator):
            actuators[name] = Binding(bound.write, bound.read)
        elif name in own and name not in constants and isinstance(bound, PointId):
            channels[name] = bound
        elif name in pairs:
            findings.add(loc, f"{name} is an actuator", "write {write: POINT, read: POINT}")
        elif name in own and name not in constants:
            findings.add(loc, f"{name} is one point", "write site/edge/device/point")
        else:
            wanted = [each for each in (*own, *sorted(pairs)) if each not in constants]
            findings.add(loc, f"{kind.name} has nothing called {name} to bind", f"it has {', '.join(wanted)}")
    missing = [name for name in (*own, *pairs) if name not in constants and name not in file.bind]
    if missing:
        findings.add(("bind",), f"{', '.join(missing)} must be bound to a point")
    channels |= {name: actuators[source].read for name, source in sources.items() if source in actuators}
    return {name: channels[name] for name in kind.channels if name in channels}, actuators
