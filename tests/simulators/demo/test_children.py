"""Children come back when killed, stay down when told to, and never outlive the demo."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from simulators.demo.children import Children, Program, run_once
from wire.errors import ConfigError, Unavailable

Eventually = Callable[..., Awaitable[None]]

SLEEPER = "import time; time.sleep(60)"
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
)


def program(name: str, code: str, folder: Path) -> Program:
    return Program(name, [sys.executable, "-c", code], dict(os.environ), folder / f"{name}.log")


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def pids(folder: Path) -> dict[str, int]:
    found: dict[str, int] = json.loads((folder / "processes.json").read_text())
    return found


async def test_a_killed_child_comes_back_and_a_stopped_one_does_not(tmp_path: Path, eventually: Eventually) -> None:
    children = Children(tmp_path)
    async with asyncio.TaskGroup() as tasks:
        children.start(tasks, program("a", SLEEPER, tmp_path), program("b", SLEEPER, tmp_path))
        await eventually(lambda: (tmp_path / "processes.json").exists() and all(pids(tmp_path).values()))
        await eventually(lambda: len(pids(tmp_path)) == 2)
        before = pids(tmp_path)
        os.kill(before["a"], signal.SIGKILL)
        await eventually(lambda: pids(tmp_path)["a"] != before["a"])
        assert children.restarts == 1
        await children.stop("a", "nobody")
        await children.stop_all()
        after = pids(tmp_path)
    assert gone(after["a"])
    assert gone(after["b"])


async def test_a_deaf_child_is_killed_in_time(tmp_path: Path, eventually: Eventually) -> None:
    children = Children(tmp_path)
    async with asyncio.TaskGroup() as tasks:
        children.start(tasks, program("deaf", STUBBORN, tmp_path))
        await eventually(lambda: (tmp_path / "deaf.log").exists() and "deaf" in (tmp_path / "deaf.log").read_text())
        begun = time.monotonic()
        await children.stop_all(0.2)
        assert time.monotonic() - begun < 1.0


async def test_a_wrong_configuration_ends_everything_with_its_words(tmp_path: Path) -> None:
    children = Children(tmp_path)
    code = "import sys; sys.stderr.write('edge.yaml:3:1: unknown key\\n'); sys.exit(2)"
    with pytest.raises(ExceptionGroup) as caught:
        async with asyncio.TaskGroup() as tasks:
            children.start(tasks, program("good", SLEEPER, tmp_path), program("bad", code, tmp_path))
    (error,) = caught.value.exceptions
    assert isinstance(error, ConfigError)
    assert "edge.yaml:3:1: unknown key" in str(error)
    assert gone(pids(tmp_path)["good"])


async def test_a_cancelled_demo_leaves_nobody_behind(tmp_path: Path, eventually: Eventually) -> None:
    children = Children(tmp_path)

    async def play() -> None:
        async with asyncio.TaskGroup() as tasks:
            children.start(tasks, program("a", SLEEPER, tmp_path))
            await asyncio.Event().wait()

    running = asyncio.create_task(play())
    await eventually(lambda: (tmp_path / "processes.json").exists())
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert gone(pids(tmp_path)["a"])


async def test_a_program_that_runs_once_tells_why_it_failed(tmp_path: Path) -> None:
    await run_once(program("fine", "pass", tmp_path))
    with pytest.raises(Unavailable, match="no such twin"):
        await run_once(program("bad", "import sys; sys.exit('no such twin')", tmp_path))
    with pytest.raises(Unavailable, match="did not end"):
        await run_once(program("slow", SLEEPER, tmp_path), within_s=0.1)
