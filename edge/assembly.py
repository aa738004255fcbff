"""From files to everything an agent is made of, before any socket opens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from importlib.metadata import PackageNotFoundError, version
from itertools import accumulate
from types import ModuleType
from typing import TYPE_CHECKING

from edge import completing
from edge.config import Device, EdgeConfig, Point, Profile
from edge.guard import Key, Limits
from wire.errors import ConfigError, Problem
from wire.messages import PointDecl, SchemaBody
from wire.runtime import files
from wire.settings import Document

if TYPE_CHECKING:
    from wire.signing import TrustedKey


Shelf = dict[str, tuple[Document, Profile]]
"""Profiles by their file."""


@dataclass(frozen=True, slots=True)
class Assembly:
    """A checked configuration: ``points[i]`` belong to ``config.devices[i]``, ``offsets[i]`` is their first index."""

    config: EdgeConfig
    points: tuple[tuple[Point, ...], ...]
    drivers: tuple[ModuleType, ...]
    trust: tuple[TrustedKey, ...]
    schema: SchemaBody

    @property
    def source(self) -> str:
        return f"{self.config.site}/{self.config.edge}"

    @property
    def version(self) -> str:
        """Of the installed program; empty where it runs from a folder."""
        try:
            return version("twinline")
        except PackageNotFoundError:
            return ""

    @property
    def offsets(self) -> list[int]:
        return [0, *accumulate(len(points) for points in self.points)][:-1]

    @property
    def all_points(self) -> list[Point]:
        """Every point in schema order."""
        return [point for points in self.points for point in points]

    @property
    def limits(self) -> dict[Key, Limits]:
        """What the guard allows, for every writable point."""
        return {
            (device.device, point.point): _limits(point)
            for device, points in zip(self.config.devices, self.points, strict=True)
            for point in points
            if point.write is not None
        }


def read(path: str) -> Assembly:
    """Load an edge's file, its profiles and its trust; raises ConfigError with every problem of all of them."""
    config = files.load(path, EdgeConfig)
    problems: list[Problem] = []
    points: list[tuple[Point, ...]] = []
    trust: tuple[TrustedKey, ...] = ()
    read_already: Shelf = {}
    for device in config.devices:
        try:
            points.append(_points_of(device, read_already))
        except ConfigError as error:
            problems += error.problems
    try:
        trust = _trust_of(config.trust) if config.trust else ()
    except ConfigError as error:
        problems += error.problems
    if problems:
        raise ConfigError(dict.fromkeys(problems))
    drivers = tuple(completing.driver(device.kind) for device in config.devices)
    return Assembly(config, tuple(points), drivers, trust, _schema(config, points))


def _points_of(device: Device, read_already: Shelf) -> tuple[Point, ...]:
    """The points of a device; devices of one model share them."""
    if device.profile not in read_already:
        document: Document = files.load_all(device.profile)[0]
        read_already[device.profile] = document, document.load(Profile)
    document, profile = read_already[device.profile]
    problems = []
    if profile.kind != device.kind:
        text = f"profile is for `{profile.kind}`, device {device.device} is `{device.kind}`"
        problems.append(document.problem(("kind",), text))
    for index, point in enumerate(profile.points):
        if point.write is not None and not getattr(point, "writable", False):
            place = ("points", index, "write")
            problems.append(document.problem(place, f"{point.point} cannot be written", on_key=True))
    if problems:
        raise ConfigError(problems)
    return profile.points


def _trust_of(path: str) -> tuple[TrustedKey, ...]:
    from wire.signing import TrustFile  # 7 MB of cryptography, which an edge that trusts nobody does not carry

    return files.load(path, TrustFile).keys


def _limits(point: Point) -> Limits:
    assert point.write is not None
    write = point.write
    return Limits(point.unit, *write.range, rate=write.rate.value if write.rate else None, every_s=write.every)


def _schema(config: EdgeConfig, points: Sequence[Sequence[Point]]) -> SchemaBody:
    declared = [
        PointDecl(
            device=device.device,
            point=point.point,
            unit=point.unit,
            device_unit=point.unit,
            type=getattr(point, "value_type", "float"),
            writable=point.write is not None,
        )
        for device, own in zip(config.devices, points, strict=True)
        for point in own
    ]
    models = [*config.devices, *(point for own in points for point in own)]
    whole = config.model_dump_json(exclude={"devices"}) + "".join(model.model_dump_json() for model in models)
    return SchemaBody(
        schema_hash=_digest("".join(each.model_dump_json() for each in declared)),
        config_hash=_digest(whole),
        points=declared,
    )


def _digest(text: str) -> str:
    return blake2b(text.encode(), digest_size=8).hexdigest()
