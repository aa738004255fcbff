"""What every checkpoint store promises, on memory and SQLite alike: one owner, all or nothing, there after a crash."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud.checkpoint.base import Checkpoint, Fenced
from cloud.checkpoint.memory import MemoryCheckpoint
from cloud.checkpoint.sqlite import SqliteCheckpoint
from wire.errors import ConfigError, Unavailable

Opening = Callable[[], Any]


@pytest.fixture(params=["memory", "sqlite"])
def opening(request: pytest.FixtureRequest, tmp_path: Path) -> Opening:
    """Opens a store, the same one each time; two open at once are two processes on one store."""
    if request.param == "memory":
        kept = MemoryCheckpoint()
        return lambda: kept
    return lambda: SqliteCheckpoint(tmp_path / "checkpoint.db")


async def test_the_first_owner_of_a_shard_has_term_one_and_finds_nothing(opening: Opening) -> None:
    async with opening() as checkpoint:
        claims = await checkpoint.claim(range(256))
    assert [(claim.shard, claim.term, dict(claim.blobs)) for claim in claims] == [(n, 1, {}) for n in range(256)]


async def test_each_claim_raises_the_term_of_its_shards_only(opening: Opening) -> None:
    async with opening() as checkpoint:
        await checkpoint.claim([3, 4])
        again = await checkpoint.claim([4, 5])
    assert [(claim.shard, claim.term) for claim in again] == [(4, 2), (5, 1)]


async def test_the_next_owner_reads_what_the_last_one_saved(opening: Opening) -> None:
    async with opening() as checkpoint:
        await checkpoint.claim([3, 4])
        await checkpoint.save({3: 1, 4: 1}, {(3, "a"): b"one", (3, "b"): b"\x00\xff", (4, "a"): b"four"})
        await checkpoint.save({3: 1, 4: 1}, {(3, "a"): b"two"})
    async with opening() as checkpoint:
        claims = await checkpoint.claim([3, 4])
    assert [dict(claim.blobs) for claim in claims] == [{"a": b"two", "b": b"\x00\xff"}, {"a": b"four"}]


async def test_an_owner_that_has_been_replaced_can_save_nothing(opening: Opening) -> None:
    async with opening() as old, opening() as new:
        await old.claim([3, 4])
        await new.claim([4])
        with pytest.raises(Fenced):
            await old.save({3: 1, 4: 1}, {(3, "a"): b"late"})
        claims = await new.claim([3, 4])
    assert [dict(claim.blobs) for claim in claims] == [{}, {}], "a part of a refused save was written"


async def test_a_shard_that_was_never_claimed_cannot_be_saved(opening: Opening) -> None:
    async with opening() as checkpoint:
        await checkpoint.claim([3])
        with pytest.raises(Fenced):
            await checkpoint.save({3: 1}, {(4, "a"): b"not mine"})
        with pytest.raises(Fenced):
            await checkpoint.save({4: 0}, {(4, "a"): b"not mine"})


async def test_a_claim_in_hand_does_not_change_under_its_owner(opening: Opening) -> None:
    async with opening() as checkpoint:
        await checkpoint.claim([3])
        await checkpoint.save({3: 1}, {(3, "a"): b"one"})
        claim = (await checkpoint.claim([3]))[0]
        await checkpoint.save({3: 2}, {(3, "a"): b"two"})
        assert claim.blobs["a"] == b"one"


steps = st.lists(
    st.one_of(
        st.tuples(st.just("claim"), st.integers(0, 1), st.sets(st.integers(0, 2), min_size=1)),
        st.tuples(st.just("save"), st.integers(0, 1), st.sets(st.integers(0, 2), min_size=1)),
    ),
    max_size=12,
)


@settings(max_examples=40, deadline=None)
@given(steps=steps)
@pytest.mark.parametrize("store", ["memory", "sqlite"])
def test_random_owners_never_overwrite_each_other(
    store: str, steps: list[tuple[str, int, set[int]]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Against a model: two owners claim and save in any order; what is stored is what the newest owner saved."""

    async def play() -> None:
        path = tmp_path_factory.mktemp("model") / "checkpoint.db"
        async with MemoryCheckpoint() if store == "memory" else SqliteCheckpoint(path) as checkpoint:
            await against_model(checkpoint, steps)

    asyncio.run(play())


async def against_model(checkpoint: Checkpoint, steps: list[tuple[str, int, set[int]]]) -> None:
    current: dict[int, int] = {}
    stored: dict[int, bytes] = {}
    held: list[dict[int, int]] = [{}, {}]
    for count, (verb, owner, shards) in enumerate(steps):
        if verb == "claim":
            for claim in await checkpoint.claim(shards):
                current[claim.shard] = current.get(claim.shard, 0) + 1
                held[owner][claim.shard] = claim.term
                expected = {"k": stored[claim.shard]} if claim.shard in stored else {}
                assert (claim.term, dict(claim.blobs)) == (current[claim.shard], expected)
            continue
        terms = {shard: held[owner].get(shard, 0) for shard in shards}
        blobs = {(shard, "k"): b"%d" % count for shard in shards}
        if all(current.get(shard) == term for shard, term in terms.items()):
            await checkpoint.save(terms, blobs)
            stored.update(dict.fromkeys(shards, b"%d" % count))
        else:
            with pytest.raises(Fenced):
                await checkpoint.save(terms, blobs)


# What only SQLite can show.

KILLED = """
import asyncio, sys
from pathlib import Path
from cloud.checkpoint.sqlite import SqliteCheckpoint

async def main():
    async with SqliteCheckpoint(Path(sys.argv[1])) as checkpoint:
        await checkpoint.claim([0, 1])
        count = 0
        while True:
            blob = b"%d" % count
            await checkpoint.save({0: 1, 1: 1}, {(0, "a"): blob, (1, "a"): blob})
            print(count, flush=True)
            count += 1

asyncio.run(main())
"""


async def test_what_was_saved_survives_kill_9_and_shards_stay_together(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.db"
    for _ in range(3):
        path.unlink(missing_ok=True)
        with subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            last = 0
            for line in process.stdout:
                last = int(line)
                if last >= 20:
                    process.send_signal(signal.SIGKILL)
                    break
            last = max([last, *(int(line) for line in process.stdout if line.endswith(b"\n"))])
        async with SqliteCheckpoint(path) as checkpoint:
            first, second = await checkpoint.claim([0, 1])
        assert first.blobs["a"] == second.blobs["a"]
        assert int(first.blobs["a"]) >= last, "an acknowledged save is gone"
        for rest in ("-wal", "-shm"):
            Path(f"{path}{rest}").unlink(missing_ok=True)


async def test_a_locked_file_is_unavailable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cloud.sqlite.PATIENCE_S", 0.05)
    path = tmp_path / "checkpoint.db"
    async with SqliteCheckpoint(path) as checkpoint:
        await checkpoint.claim([0])
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(Unavailable, match="locked"):
            await checkpoint.save({0: 1}, {(0, "a"): b"x"})
        other.execute("ROLLBACK")
        other.close()
        await checkpoint.save({0: 1}, {(0, "a"): b"x"})


async def test_a_file_that_is_no_database_says_so(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.db"
    path.write_bytes(os.urandom(4096))
    with pytest.raises(ConfigError, match="not a usable database"):
        async with SqliteCheckpoint(path):
            pass


async def test_a_cancelled_save_is_whole_or_absent(tmp_path: Path) -> None:
    async with SqliteCheckpoint(tmp_path / "checkpoint.db") as checkpoint:
        await checkpoint.claim(range(50))
        terms = dict.fromkeys(range(50), 1)
        for attempt in range(20):
            blobs = {(shard, "a"): b"%d" % attempt * 500 for shard in range(50)}
            try:
                async with asyncio.timeout(attempt / 4000):
                    await checkpoint.save(terms, blobs)
            except TimeoutError:
                pass
        claims = await checkpoint.claim(range(50))
    assert len({claim.blobs.get("a") for claim in claims}) == 1
