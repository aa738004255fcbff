"""The life of a process, with real processes where exit codes and signals count."""

from __future__ import annotations

import asyncio
import logging
import signal
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest

from wire.errors import ConfigError, Unavailable
from wire.runtime.observe import Counters
from wire.runtime.service import backoff, supervise

ROOT = Path(__file__).parents[3]
HEAD = """
import asyncio, sys
from wire.errors import ConfigError, Problem
from wire.runtime.service import run
async def forever():
    try:
        print("up", flush=True)
        await asyncio.sleep(3600)
    finally:
        await asyncio.sleep(0.05)
        print("tidy", flush=True)
async def grouped():
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(forever())
        tasks.create_task(misconfigured())
async def misconfigured():
    raise ConfigError([Problem("a.yaml", 3, 1, "bad"), Problem("a.yaml", 9, 4, "worse", "mend it")])
async def broken():
    raise ZeroDivisionError("oops")
async def done():
    pass
sys.exit(run("test", MAIN))
"""


def start(main: str) -> subprocess.Popen[str]:
    code = HEAD.replace("MAIN", main)
    return subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_cleanly(number: signal.Signals) -> None:
    child = start("forever")
    assert child.stdout is not None
    assert child.stdout.readline() == "up\n"
    child.send_signal(number)
    out, err = child.communicate(timeout=20)
    assert (out, err, child.returncode) == ("tidy\n", "", 0)


@pytest.mark.parametrize(
    ("main", "code", "words"),
    [
        ("done", 0, ""),
        ("misconfigured", 2, "a.yaml:3:1: bad\na.yaml:9:4: worse (mend it)\n"),
        ("grouped", 2, "a.yaml:3:1: bad\na.yaml:9:4: worse (mend it)\n"),
        ("broken", 1, "ZeroDivisionError: oops"),
    ],
)
def test_the_exit_code_says_what_to_do(main: str, code: int, words: str) -> None:
    child = start(main)
    _, err = child.communicate(timeout=20)
    assert child.returncode == code
    assert words in err


async def test_supervise_tries_again_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    counters, calls = Counters(), 0

    async def part() -> None:
        nonlocal calls
        calls += 1
        if calls < 4:
            raise Unavailable("gone")

    with caplog.at_level(logging.WARNING):
        await supervise("part", part, counters=counters, log=logging.getLogger("t"), cap_s=0.01)
    assert (calls, counters.errors, len(caplog.records)) == (4, 3, 1)
    assert counters.reasons == {"Unavailable": 3}


async def test_supervise_lets_fatal_errors_and_cancellation_through() -> None:
    log = logging.getLogger("t")

    async def misconfigured() -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(fail())

    async def fail() -> None:
        raise ConfigError.at("f", "no")

    with pytest.raises(ExceptionGroup):
        await supervise("part", misconfigured, counters=Counters(), log=log)
    with pytest.raises(ConfigError):
        await supervise("part", fail, counters=Counters(), log=log)
    task = asyncio.create_task(supervise("part", lambda: asyncio.sleep(3600), counters=Counters(), log=log))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_backoff_doubles_up_to_its_cap_with_full_jitter() -> None:
    assert list(islice(backoff(1.0, first_s=0.1, rng=lambda: 1.0), 6)) == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    assert next(backoff(1.0, rng=lambda: 0.0)) == 0.0
    assert next(backoff(0.05, rng=lambda: 1.0)) == 0.05
