"""The ledger: append-only, one final state, nothing lost by a kill, every changed byte found."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from cloud.commands.ledger import Ledger
from cloud.commands.model import Command, Step
from wire.errors import BadData, Rejected
from wire.messages import State
from wire.points import PointId

POINT = PointId("demo", "edge-1", "tank", "pump-set")


def command(cmd_id: str = "c1", key: str | None = None) -> Command:
    return Command(
        cmd_id=cmd_id,
        key=key,
        twin="tank-1",
        actuator="pump",
        point=POINT,
        value=4.0,
        unit="V",
        value_si=4.0,
        value_device=4000.0,
        device_unit="mV",
        issuer="test",
        slot=8,
        reason="",
        requested=1,
        exp=100,
        hold_s=30.0,
        patience_s=6.0,
    )


async def test_a_story_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    async with Ledger(tmp_path / "ledger.db") as ledger:
        entry, new = await ledger.enter(command(), "d")
        assert new
        assert entry.state is State.REQUESTED
        await ledger.add("c1", Step(State.SENT, "", 2, {"revision": 1}))
        await ledger.add("c1", Step(State.VERIFIED, "", 3, {"readback": 3999.0}))
    async with Ledger(tmp_path / "ledger.db") as ledger:
        entry = await ledger.entry("c1")
        assert entry.command == command()
        assert [step.what for step in entry.steps] == ["requested", "sent", "verified"]
        assert entry.steps[2].detail == {"readback": 3999.0}
        assert entry.state is State.VERIFIED
        assert entry.standing
        assert await ledger.verify() == 3


async def test_there_is_one_final_state_and_it_stays(tmp_path: Path) -> None:
    async with Ledger(tmp_path / "ledger.db") as ledger:
        await ledger.enter(command(), "d")
        await ledger.add("c1", Step(State.UNKNOWN, "no-result", 2))
        entry = await ledger.add("c1", Step(State.VERIFIED, "", 3))
        assert entry.state is State.UNKNOWN
        assert entry.reason == "no-result"
        assert entry.steps[-1].what == "note"
        assert "verified" in entry.steps[-1].reason
        assert await ledger.counts() == {"unknown": 1}


async def test_the_file_itself_refuses_to_forget(tmp_path: Path) -> None:
    async with Ledger(tmp_path / "ledger.db") as ledger:
        await ledger.enter(command(), "d", Step(State.REJECTED, "range", 1))
    with sqlite3.connect(tmp_path / "ledger.db") as connection:
        for change in (
            "DELETE FROM steps",
            "UPDATE steps SET reason = 'x'",
            "INSERT INTO steps VALUES (3, 'c1', 'verified', '', 1, '{}', 1, '')",
        ):
            with pytest.raises(sqlite3.IntegrityError):
                connection.execute(change)
    connection.close()


async def test_the_same_key_is_the_same_command_and_another_order_is_a_conflict(tmp_path: Path) -> None:
    async with Ledger(tmp_path / "ledger.db") as ledger:
        await ledger.enter(command("c1", "k"), "digest")
        again, new = await ledger.enter(command("c2", "k"), "digest")
        assert not new
        assert again.command.cmd_id == "c1"
        with pytest.raises(Rejected, match="conflict"):
            await ledger.enter(command("c3", "k"), "other")
        with pytest.raises(Rejected, match="unknown-setpoint"):
            await ledger.entry("c2")


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE steps SET reason = 'rang' WHERE n = 2",
        "UPDATE steps SET detail = replace(detail, '4000.0', '4001.0') WHERE n = 1",
        "UPDATE steps SET at = at + 1 WHERE n = 3",
        "DELETE FROM steps WHERE n = 2",
        "UPDATE steps SET final = 0 WHERE n = 2",
    ],
)
async def test_a_changed_byte_is_found(tmp_path: Path, damage: str) -> None:
    async with Ledger(tmp_path / "ledger.db") as ledger:
        await ledger.enter(command("c1"), "d", Step(State.REJECTED, "range", 1))
        await ledger.enter(command("c2"), "d")
        assert await ledger.verify() == 3
    with sqlite3.connect(tmp_path / "ledger.db") as connection:
        connection.execute("DROP TRIGGER steps_stay")
        connection.execute("DROP TRIGGER steps_remain")
        assert connection.execute(damage).rowcount == 1
    connection.close()
    async with Ledger(tmp_path / "ledger.db") as ledger:
        with pytest.raises(BadData, match="ledger"):
            await ledger.verify()


async def test_revisions_only_grow_and_jump_over_what_the_edge_has_seen(tmp_path: Path) -> None:
    other = PointId("demo", "edge-1", "tank", "other")
    async with Ledger(tmp_path / "ledger.db") as ledger:
        assert [await ledger.reserve(POINT, 0), await ledger.reserve(POINT, 0)] == [1, 2]
        assert await ledger.reserve(POINT, 40) == 41
        assert await ledger.reserve(other, 0) == 1
    async with Ledger(tmp_path / "ledger.db") as ledger:
        assert await ledger.reserve(POINT, 7) == 42


async def test_open_entries_are_the_unfinished_and_the_standing(tmp_path: Path) -> None:
    async with Ledger(tmp_path / "ledger.db") as ledger:
        for cmd_id, steps in {
            "asked": [],
            "standing": [Step(State.SENT, "", 1), Step(State.VERIFIED, "", 2)],
            "released": [Step(State.VERIFIED, "", 2), Step("released", "by x", 3)],
            "refused": [Step(State.REJECTED, "range", 2)],
        }.items():
            await ledger.enter(command(cmd_id), "d", *steps)
        assert {entry.command.cmd_id for entry in await ledger.open_entries()} == {"asked", "standing"}


async def test_of_many_renewals_only_the_newest_is_told(tmp_path: Path) -> None:
    async with Ledger(tmp_path / "ledger.db") as ledger:
        await ledger.enter(command(), "d", Step(State.SENT, "", 1), Step(State.VERIFIED, "", 2))
        for at in range(10, 20):
            entry = await ledger.add("c1", Step("renewed", "", at))
        assert [(step.what, step.at) for step in entry.steps[2:]] == [("verified", 2), ("renewed", 19)]
        assert entry.granted == 19


WRITER = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from tests.cloud.commands.test_ledger import command
from cloud.commands.ledger import Ledger
from cloud.commands.model import Step
from wire.messages import State

async def main():
    async with Ledger(Path(sys.argv[1])) as ledger:
        for number in range(100_000):
            await ledger.enter(command(f"c{number}", f"k{number}"), "d")
            await ledger.add(f"c{number}", Step(State.SENT, "", 1), Step(State.VERIFIED, "", 2))
            print(number, flush=True)

asyncio.run(main())
"""


async def test_what_was_told_survives_a_kill(tmp_path: Path) -> None:
    root = str(Path(__file__).parents[3])
    path = tmp_path / "ledger.db"
    for _ in range(3):
        path.unlink(missing_ok=True)
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), root], stdout=subprocess.PIPE, text=True, cwd=root
        ) as writer:
            assert writer.stdout is not None
            told = 0
            while told < 20:
                told = int(await asyncio.to_thread(writer.stdout.readline))
            writer.send_signal(signal.SIGKILL)
            told = max([told, *(int(line) for line in writer.stdout.read().split())])
        async with Ledger(path) as ledger:
            assert (await ledger.counts())["verified"] >= told + 1
            assert await ledger.verify() >= 3 * (told + 1)
            for number in range(told + 1):
                assert (await ledger.entry(f"c{number}")).state is State.VERIFIED
