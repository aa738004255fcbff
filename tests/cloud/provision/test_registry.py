"""Registering types and twins: everything or nothing, every problem at once, the same text is no change."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from cloud.provision.plan import Catalogue, SourceText, plan
from cloud.provision.registry import Registry
from tests.small_cloud import SOURCES, TWIN, TYPE
from wire.errors import ConfigError


def registry(folder: Path) -> Registry:
    return Registry(folder / "registry.db", now=time.time_ns)


async def test_types_and_twins_are_compiled_and_survive(tmp_path: Path) -> None:
    async with registry(tmp_path) as first:
        changes = await first.apply(SOURCES)
        assert [(c.kind, c.name, c.action, c.revision) for c in changes] == [
            ("type", "small-tank", "created", 1),
            ("twin", "tank-1", "created", 1),
        ]
        made = first.twin("tank-1")
        assert made is not None
        assert made.type is first.types()["small-tank"]
    async with registry(tmp_path) as second:
        again = second.twin("tank-1")
        assert again is not None
        assert again.type.hash == made.type.hash
        assert second.revision == 2
        assert second.twin("nobody") is None


async def test_applying_the_same_again_changes_nothing(tmp_path: Path) -> None:
    async with registry(tmp_path) as found:
        await found.apply(SOURCES)
        before = found.twins(), found.revision
        # in one file or in several, the text of a document is what counts
        together = [SourceText("all.yaml", f"# all of it\n---\n{TYPE}\n---\n{TWIN}")]
        changes = await found.apply(together)
        assert [change.action for change in changes] == ["unchanged", "unchanged"]
        assert (found.twins(), found.revision) == before


async def test_a_changed_type_rebuilds_its_twins_and_nobody_else_s(tmp_path: Path) -> None:
    other = TWIN.replace("tank-1", "other").replace("small-tank@1", "signal").split("bind:")[0]
    signal = other + "with: {unit: degC, noise: 0.2 degC}\nbind: {value: demo/edge-tank/tank/t}\n"
    async with registry(tmp_path) as found:
        await found.apply([*SOURCES, SourceText("signal.yaml", signal)])
        tank, plain = found.twin("tank-1"), found.twin("other")
        changes = await found.apply([SourceText("types.yaml", TYPE.replace("0.3 cm", "0.4 cm"))])
        assert [(change.action, change.revision) for change in changes] == [("changed", 2)]
        changed = found.twin("tank-1")
        assert tank is not None
        assert changed is not None
        assert changed.type.hash != tank.type.hash
        assert found.twin("other") is plain


async def test_every_problem_of_every_file_comes_at_once_and_nothing_is_written(tmp_path: Path) -> None:
    broken = [
        SourceText("a.yaml", TYPE.replace("noise: 0.3 cm", "noise: 0.3 V").replace("small-tank", "first")),
        SourceText("b.yaml", f"{TYPE}---\n{TWIN.replace('small-tank', 'small-tonk')}"),
        SourceText("c.yaml", "edge: edge-1\n"),
        SourceText("d.yaml", "type: [unclosed"),
        SourceText("e.yaml", TYPE),
    ]
    async with registry(tmp_path) as found:
        with pytest.raises(ConfigError) as error:
            await found.apply(broken)
        problems = {(problem.file, problem.line) for problem in error.value.problems}
        assert {file for file, _ in problems} == {"a.yaml", "b.yaml", "c.yaml", "d.yaml", "e.yaml"}
        lines = f"{TYPE}---\n{TWIN}".splitlines()
        assert ("b.yaml", lines.index("of: small-tank@1") + 1) in problems
        assert found.twins() == {}
        assert found.revision == 0


async def test_a_type_cannot_be_changed_under_a_twin_that_no_longer_fits(tmp_path: Path) -> None:
    async with registry(tmp_path) as found:
        await found.apply(SOURCES)
        renamed = TYPE.replace("  level: {measures", "  height: {measures")
        with pytest.raises(ConfigError) as error:
            await found.apply([SourceText("types.yaml", renamed)])
        assert "registry/twin/tank-1" in str(error.value)
        kept = found.twin("tank-1")
        assert kept is not None
        assert "level" in kept.channels


async def test_two_twins_never_command_one_point(tmp_path: Path) -> None:
    async with registry(tmp_path) as found:
        await found.apply(SOURCES)
        with pytest.raises(ConfigError, match="written already, by tank-1's pump"):
            await found.apply([SourceText("second.yaml", TWIN.replace("tank-1", "tank-2"))])


async def test_whoever_waits_hears_of_a_change(tmp_path: Path) -> None:
    async with registry(tmp_path) as found, asyncio.timeout(10):
        waiting = asyncio.create_task(found.changed(0))
        await asyncio.sleep(0)
        await found.apply(SOURCES)
        assert await waiting == 2


def test_the_environment_is_not_part_of_what_is_registered() -> None:
    with pytest.raises(ConfigError, match="HOME"):
        plan(Catalogue(), [SourceText("t.yaml", TYPE.replace("1.0.0", "${HOME}"))])


def test_the_demo_s_twins_are_registered() -> None:
    folder = Path(__file__).parents[3] / "configs"
    files = [*sorted((folder / "types").glob("*.yaml")), *sorted((folder / "twins").glob("*.yaml"))]
    found = plan(Catalogue(), [SourceText(str(file), file.read_text()) for file in files])
    assert {"tank-1", "zone-1", "car-1"} <= set(found.catalogue.twins)
