"""The outbox: durable before sendable, bounded, and honest about what it lost."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from wire import codec
from wire.delivery import CLOSED_SEQ, Position, StreamKey
from wire.errors import ConfigError, Unavailable
from wire.messages import GapBody, Predecessor, ReadingsBody, Record, SchemaBody
from wire.runtime.outbox import Outbox, Pending, Relayed
from wire.runtime.outbox_file import FRONT, OutboxFile
from wire.runtime.outbox_types import Work

Eventually = Callable[..., Awaitable[None]]
KEY = StreamKey("s/e", "telemetry")
SCHEMA = SchemaBody(schema_hash="s1", config_hash="c", points=[])


def readings(number: int, count: int = 1) -> ReadingsBody:
    return ReadingsBody(
        schema_hash="s1", base=1_000 + number, point=[0] * count, dt=[0] * count, value=[float(number)] * count
    )


def foreign(epoch: int, seq: int, source: str = "s/e", count: int = 1) -> Relayed:
    body = SCHEMA if seq == 0 else readings(seq, count)
    return Relayed.of(Record(source=source, stream="telemetry", epoch=epoch, seq=seq, body=body))


async def everything(outbox: Outbox, stream: str = "telemetry") -> list[Pending]:
    found: list[Pending] = []
    cursor = FRONT
    while True:
        some, cursor = await outbox.pending(stream, cursor, max_readings=100, max_bytes=1 << 20)
        if not some:
            return found
        found += some


def bodies(found: list[Pending]) -> list[Record]:
    return [codec.decode(Record, each.raw) for each in found]


async def settled(outbox: Outbox, key: StreamKey, epoch: int, seq: int, eventually: Eventually) -> None:
    before = outbox.totals.pending_records
    assert await outbox.settle(key, epoch, seq)
    await eventually(lambda: outbox.totals.pending_records < before)


async def test_numbers_survive_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "edge.db"
    async with Outbox(path, source="s/e") as outbox:
        epoch = outbox.epoch
        await outbox.declare(SCHEMA)
        assert [await outbox.append("telemetry", readings(n)) for n in range(3)] == [1, 2, 3]
        assert await outbox.append("results", SCHEMA) == 0
    async with Outbox(path, source="s/e") as outbox:
        assert outbox.epoch == epoch
        await outbox.declare(SCHEMA)
        assert await outbox.append("telemetry", readings(3)) == 4
        found = await everything(outbox)
        assert [each.seq for each in found] == [0, 1, 2, 3, 4]
        assert outbox.totals.committed_readings == 4
        await outbox.declare(SCHEMA.model_copy(update={"schema_hash": "s2"}))
        assert (await everything(outbox))[-1].seq == 5
    assert Outbox.inspect(path).pending_records == 7


async def test_the_file_survives_a_power_cut_by_its_settings(tmp_path: Path) -> None:
    async with Outbox(tmp_path / "edge.db", source="s/e") as outbox:
        settings = [outbox._file.db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")]
    assert settings == ["wal", 2], "FULL: in WAL mode NORMAL does not sync a commit"


async def test_commits_gather_while_one_is_running(tmp_path: Path) -> None:
    async with Outbox(tmp_path / "edge.db", source="s/e", linger_s=0.05) as outbox:
        seqs = await asyncio.gather(*(outbox.append("telemetry", readings(n)) for n in range(2000)))
        assert seqs == list(range(2000))
        assert await outbox.grown(0) < 20


async def test_what_was_appended_is_committed_before_closing_even_when_cancelled(tmp_path: Path) -> None:
    path = tmp_path / "edge.db"

    async def agent() -> None:
        async with Outbox(path, source="s/e", linger_s=5.0) as outbox, asyncio.TaskGroup() as tasks:
            await outbox.append("telemetry", readings(0))
            for n in range(5):
                tasks.create_task(outbox.append("telemetry", readings(n)))
            await asyncio.sleep(3600)

    task = asyncio.create_task(agent())
    await asyncio.sleep(0.3)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert Outbox.inspect(path).committed_readings == 6


async def test_an_ack_forgets_and_counts(tmp_path: Path, eventually: Eventually) -> None:
    async with Outbox(tmp_path / "edge.db", source="s/e", linger_s=0.0) as outbox:
        for n in range(10):
            await outbox.append("telemetry", readings(n, 3))
        await settled(outbox, KEY, outbox.epoch, 6, eventually)
        assert outbox.totals.acked_readings == 21
        assert [each.seq for each in await everything(outbox)] == [7, 8, 9]


async def test_relays_records_and_positions_in_one_transaction(tmp_path: Path) -> None:
    path = tmp_path / "gateway.db"
    other = StreamKey("s/f", "telemetry")
    async with Outbox(path, source=None) as outbox:
        await outbox.relay([foreign(5, 0), foreign(5, 1), foreign(9, 0, "s/f")], {KEY: Position(5, 2, (3, 4))})
        await outbox.relay([], {other: Position(9, 1)})
    async with Outbox(path, source=None) as outbox:
        assert outbox.positions() == {KEY: Position(5, 2, (3, 4)), other: Position(9, 1)}
        assert [each.key for each in await everything(outbox)] == [KEY, KEY, other]
        raw = await outbox.schema(KEY, "s1")
        assert raw is not None
        assert codec.decode(Record, raw).body == SCHEMA
        assert await outbox.schema(KEY, "unheard") is None


async def test_keeps_acked_records_for_the_grace_period_and_can_send_them_again(
    tmp_path: Path, eventually: Eventually
) -> None:
    time = 1_000_000_000_000
    async with Outbox(tmp_path / "g.db", source=None, grace_s=60.0, linger_s=0.0, now=lambda: time) as outbox:
        await outbox.relay([foreign(5, seq) for seq in range(6)], {KEY: Position(5, 6)})
        await settled(outbox, KEY, 5, 4, eventually)
        assert [each.seq for each in await everything(outbox)] == [5]
        assert await outbox.rewind(KEY, 5, 2)
        assert [each.seq for each in await everything(outbox)] == [3, 4, 5]
        assert outbox.totals.acked_readings == 2
        await settled(outbox, KEY, 5, 5, eventually)
        time += 61_000_000_000
        await outbox.relay([foreign(5, 6)], {KEY: Position(5, 7)})
        assert await outbox.rewind(KEY, 5, 2)
        lost, rest = bodies(await everything(outbox))
        assert isinstance(lost.body, GapBody)
        assert (lost.seq, lost.last_seq, lost.body.reason, rest.seq) == (3, 5, "rollback", 6)
        assert not await outbox.rewind(KEY, 5, 2)


async def test_over_the_quota_the_oldest_unsent_readings_become_one_gap(tmp_path: Path) -> None:
    path, quota = tmp_path / "edge.db", 1 << 20
    biggest = 0
    async with Outbox(path, source="s/e", quota_bytes=quota, linger_s=0.0) as outbox:
        await outbox.declare(SCHEMA)
        await outbox.append("telemetry", readings(1, 10))
        handed, _ = await outbox.pending("telemetry", FRONT, max_readings=1, max_bytes=1 << 20)
        for n in range(2, 600):
            await outbox.pending("results", FRONT, max_readings=1, max_bytes=1)
            await outbox.append("telemetry", readings(n, 400))
            biggest = max(biggest, sum(part.stat().st_size for part in tmp_path.iterdir() if "shm" not in part.name))
        totals, found = outbox.totals, bodies(await everything(outbox))
    assert biggest <= quota
    assert [each.seq for each in handed] == [0, 1]
    assert [(each.seq, each.body.kind) for each in found[:3]] == [(0, "schema"), (1, "readings"), (2, "gap")]
    gaps = [each for each in found if isinstance(each.body, GapBody)]
    assert len(gaps) == 1
    assert sum(gap.body.count for gap in gaps if isinstance(gap.body, GapBody)) == totals.dropped_readings > 0
    kept = sum(len(each.body.point) for each in found if isinstance(each.body, ReadingsBody))
    assert kept + totals.dropped_readings == totals.committed_readings == 598 * 400 + 10
    covered = [seq for each in found for seq in range(each.seq, each.last_seq + 1)]
    assert covered == list(range(600))


async def test_refuses_what_finds_no_room_and_goes_on_when_there_is_some(
    tmp_path: Path, eventually: Eventually
) -> None:
    async with Outbox(tmp_path / "e.db", source="s/e", quota_bytes=1 << 18, linger_s=0.0) as outbox:
        big = SCHEMA.model_copy(update={"config_hash": "x" * 4000})
        count = 0
        with pytest.raises(Unavailable):
            while count < 200:
                await outbox.append("results", big)
                count += 1
        assert outbox.totals.committed_records == count
        await settled(outbox, StreamKey("s/e", "results"), outbox.epoch, count - 1, eventually)
        assert await outbox.append("results", big) == count


async def test_a_damaged_file_is_set_aside_and_a_new_epoch_begins(tmp_path: Path) -> None:
    path = tmp_path / "edge.db"
    rng = random.Random(4)
    for trial in range(12):
        async with Outbox(path, source="s/e") as outbox:
            epoch = outbox.epoch
            for n in range(30):
                await outbox.append("telemetry", readings(n, 200))
        content = bytearray(path.read_bytes())
        if trial % 3 == 0:
            content[: rng.randrange(1, 200)] = bytes(rng.randrange(1, 200))
        elif trial % 3 == 1:
            del content[rng.randrange(100, 3000) :]
        else:
            content = bytearray(rng.randbytes(len(content)))
        path.write_bytes(content)
        async with Outbox(path, source="s/e") as outbox:
            assert outbox.epoch > epoch
            await outbox.declare(SCHEMA)
            assert (await everything(outbox))[0].seq == 0
        assert list(tmp_path.glob("edge.db.damaged-*"))
        assert outbox.replaced
        path.unlink()


async def test_a_place_that_can_never_work_is_a_configuration_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError):
        async with Outbox(tmp_path / "file" / "edge.db", source="s/e"):
            pass


async def test_a_file_from_an_old_image_never_uses_a_number_twice(tmp_path: Path, eventually: Eventually) -> None:
    path, image = tmp_path / "edge.db", tmp_path / "image.db"
    async with Outbox(path, source="s/e", linger_s=0.0) as outbox:
        await outbox.declare(SCHEMA)
        await outbox.append("telemetry", readings(1))
        old = outbox.epoch
    shutil.copy(path, image)
    async with Outbox(path, source="s/e", linger_s=0.0) as outbox:
        for n in range(2, 6):
            await outbox.append("telemetry", readings(n))
    shutil.copy(image, path)
    for _ in range(2):
        async with Outbox(path, source="s/e", linger_s=0.0) as outbox:
            for n in range(10, 17):
                await outbox.append("telemetry", readings(n))
            assert outbox.unproven(KEY)
    async with Outbox(path, source="s/e", linger_s=0.0) as outbox:
        assert not await outbox.settle(KEY, old, 5), "the next hop has what this file never sent"
        assert outbox.epoch > old
        found = bodies(await everything(outbox))
        assert isinstance(found[0].body, SchemaBody)
        assert found[0].body.predecessor == Predecessor(epoch=old, last_seq=1)
        assert [(each.epoch, each.seq) for each in found] == [(outbox.epoch, seq) for seq in range(15)]
        values = [each.body.value[0] for each in found if isinstance(each.body, ReadingsBody)]
        assert values == [*range(10, 17), *range(10, 17)]
        assert await outbox.append("telemetry", readings(99)) == 15
        await settled(outbox, KEY, outbox.epoch, 15, eventually)


async def test_a_sender_of_a_closed_epoch_opens_a_new_one(tmp_path: Path) -> None:
    async with Outbox(tmp_path / "edge.db", source="s/e", linger_s=0.0) as outbox:
        old = outbox.epoch
        await outbox.declare(SCHEMA)
        await outbox.append("telemetry", readings(1))
        assert not await outbox.settle(KEY, old, CLOSED_SEQ)
        found = bodies(await everything(outbox))
        assert [each.body.kind for each in found] == ["schema", "schema", "readings"]
        assert {each.epoch for each in found} == {outbox.epoch} != {old}


WRITER = """
import asyncio, sys
from wire.runtime.outbox import Outbox
from tests_outbox import readings, foreign, KEY
from wire.delivery import Position
path, mode, ledger = sys.argv[1:]
async def main():
    with open(ledger, "a", buffering=1) as book:
        async with Outbox(path, source="s/e" if mode == "append" else None, linger_s=0.0) as outbox:
            async def one(lane):
                n = 0
                while True:
                    seq = await outbox.append("telemetry", readings(n, 20))
                    book.write(f"{outbox.epoch} {seq}\\n"); n += 1
            if mode == "append":
                await asyncio.gather(*(one(lane) for lane in range(4)))
            at = outbox.positions().get(KEY, Position(7, 0)).next_seq
            while True:
                await outbox.relay([foreign(7, seq, count=20) for seq in range(at, at + 5)], {KEY: Position(7, at + 5)})
                book.writelines(f"7 {seq}\\n" for seq in range(at, at + 5)); at += 5
asyncio.run(main())
"""


@pytest.mark.parametrize("mode", ["append", "relay"])
async def test_nothing_acknowledged_is_lost_by_kill_9(tmp_path: Path, mode: str) -> None:
    path, ledger = tmp_path / "out.db", tmp_path / "ledger"
    module = tmp_path / "tests_outbox.py"
    shutil.copy(Path(__file__), module)
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[3]}"}
    rng = random.Random(1)
    for _ in range(6):
        child = subprocess.Popen([sys.executable, "-c", WRITER, str(path), mode, str(ledger)], env=environment)
        seen = ledger.stat().st_size if ledger.exists() else 0
        while child.poll() is None and (not ledger.exists() or ledger.stat().st_size < seen + 400):
            await asyncio.sleep(0.005)
        assert child.poll() is None
        await asyncio.sleep(rng.random() * 0.05)
        child.send_signal(signal.SIGKILL)
        child.wait()
    figures = Outbox.inspect(path)
    promised = [tuple(map(int, line.split())) for line in ledger.read_text().splitlines()]
    async with Outbox(path, source="s/e" if mode == "append" else None) as outbox:
        found = await everything(outbox)
        stored = {(each.epoch, each.seq) for each in found}
        assert len(promised) == len(set(promised)), "a number was used twice"
        assert set(promised) <= stored
        assert [each.seq for each in found] == list(range(len(found)))
        assert figures.committed_readings == sum(each.readings for each in found)
        if mode == "relay":
            assert outbox.positions()[KEY].next_seq == found[-1].seq + 1
    assert not list(tmp_path.glob("*damaged*"))


async def test_one_process_at_a_time(tmp_path: Path) -> None:
    """A second writer would number the same records again."""
    async with Outbox(tmp_path / "edge.db", source="s/e") as outbox:
        with pytest.raises(ConfigError, match="another process has it open"):
            async with Outbox(tmp_path / "edge.db", source="s/e"):
                pass
        await outbox.append("telemetry", readings(0))
    async with Outbox(tmp_path / "edge.db", source="s/e") as outbox:
        assert outbox.totals.committed_readings == 1


async def test_a_schema_outside_the_sequence_is_kept_for_who_asks_and_never_sent(tmp_path: Path) -> None:
    repeated = Relayed.of(Record(source="s/e", stream="telemetry", epoch=7, seq=-1, body=SCHEMA))
    async with Outbox(tmp_path / "gateway.db", source=None) as outbox:
        await outbox.relay([repeated], {})
        assert await everything(outbox) == []
        kept = await outbox.schema(KEY, SCHEMA.schema_hash)
    assert kept is not None
    assert codec.decode(Record, kept).body == SCHEMA


class Racing:
    """A reader before whose first query a commit lands."""

    def __init__(self, reader: sqlite3.Connection, commit: Callable[[], object]) -> None:
        self._reader, self._commit = reader, [commit]

    def execute(self, *query: Any) -> sqlite3.Cursor:
        while self._commit:
            self._commit.pop()()
        return self._reader.execute(*query)


def test_a_stream_that_begins_while_others_are_read_is_not_passed_over(tmp_path: Path) -> None:
    file = OutboxFile.open(tmp_path / "gateway.db", None, 1, 1 << 20)
    file.commit(Work(relayed=[foreign(7, 0, "s/a")]), 1, 0)
    _, cursor = file.pending("telemetry", FRONT, 10, 1 << 20)
    reader, newcomers = file._reader, Work(relayed=[foreign(7, 0, "s/b"), foreign(7, 1, "s/a")])
    file._reader = Racing(reader, lambda: file.commit(newcomers, 1, 0))  # type: ignore[assignment]
    some, cursor = file.pending("telemetry", cursor, 10, 1 << 20)
    more, _ = file.pending("telemetry", cursor, 10, 1 << 20)
    file._reader = reader
    file.close(clean=True)
    assert {(each.key.source, each.seq) for each in some + more} == {("s/b", 0), ("s/a", 1)}
