"""Refused payloads are set aside, bounded, and never in the way."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from gateway.deadletter import EXCERPT_BYTES, WAITING, DeadLetters


async def run_for_a_moment(letters: DeadLetters) -> None:
    task = asyncio.create_task(letters.run())
    await asyncio.sleep(0.02)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_each_is_a_line_with_its_reason(tmp_path: Path) -> None:
    letters = DeadLetters(tmp_path / "refused.jsonl", now=lambda: 7)
    letters.put("tw/1/x", b'{"half": "a frame\xff\n', "malformed: payload")
    await run_for_a_moment(letters)
    (entry,) = [json.loads(line) for line in (tmp_path / "refused.jsonl").read_text().splitlines()]
    assert entry == {
        "at": 7,
        "topic": "tw/1/x",
        "reason": "malformed: payload",
        "bytes": 19,
        "payload": '{"half": "a frame\\xff\n',
    }


async def test_what_is_waiting_at_the_end_is_written(tmp_path: Path) -> None:
    letters = DeadLetters(tmp_path / "refused.jsonl", now=lambda: 0)
    task = asyncio.create_task(letters.run())
    await asyncio.sleep(0)
    letters.put("t", b"x", "version")
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert len((tmp_path / "refused.jsonl").read_text().splitlines()) == 1


async def test_a_flood_is_counted_and_bounded(tmp_path: Path) -> None:
    letters = DeadLetters(tmp_path / "refused.jsonl", limit_bytes=64_000, now=lambda: 0)
    for _ in range(20):
        for _ in range(WAITING + 10):
            letters.put("t", b"y" * (2 * EXCERPT_BYTES), "oversize")
        await run_for_a_moment(letters)
    assert letters.count == 20 * (WAITING + 10)
    assert letters.lost == 20 * 10
    sizes = [path.stat().st_size for path in tmp_path.iterdir()]
    assert len(sizes) == 2
    assert max(sizes) < 32_000 + 2 * WAITING * EXCERPT_BYTES


async def test_a_disk_that_refuses_costs_only_the_letters(tmp_path: Path) -> None:
    letters = DeadLetters(tmp_path / "not" / "there" / "refused.jsonl", now=lambda: 0)
    letters.put("t", b"x", "version")
    await run_for_a_moment(letters)
    assert (letters.count, letters.lost) == (1, 1)
