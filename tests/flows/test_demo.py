"""``twin-sim demo``, as a user starts it: whole processes, a real broker, the real protocols."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

TWIN_SIM = Path(sys.executable).parent / "twin-sim"

pytestmark = [pytest.mark.flow, pytest.mark.deadline(110)]


async def start(state: Path, *arguments: str) -> asyncio.subprocess.Process:
    with (state / "demo.err").open("wb") as errors:
        return await asyncio.create_subprocess_exec(
            TWIN_SIM,
            "demo",
            "--state",
            str(state),
            *arguments,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
        )


def processes(state: Path) -> dict[str, int]:
    path = state / "processes.json"
    return json.loads(path.read_text()) if path.exists() else {}


async def until(state: Path, demo: asyncio.subprocess.Process, done: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert demo.returncode is None, (state / "demo.err").read_text()
        assert time.monotonic() < deadline, (state / "demo.err").read_text()
        await asyncio.sleep(0.05)


def running(state: Path) -> bool:
    return "the run begins" in (state / "demo.err").read_text()


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


async def finish(state: Path, demo: asyncio.subprocess.Process) -> dict[str, object]:
    output, _ = await demo.communicate()
    assert demo.returncode == 0, (state / "demo.err").read_text()
    assert all(gone(pid) for pid in processes(state).values())
    result: dict[str, object] = json.loads(output.splitlines()[-1])
    return result


async def test_a_short_run_loses_nothing_and_its_setpoints_end_as_they_should(tmp_path: Path) -> None:
    demo = await start(tmp_path, "--for", "16s", "--json")
    result = await finish(tmp_path, demo)
    assert (result["lost"], result["duplicates"]) == (0, 0)
    assert result["readings_applied"] == result["readings_committed"]
    assert isinstance(result["readings_committed"], int)
    assert result["readings_committed"] > 16 * 60
    assert result["setpoints"] == {"verified": 2, "rejected": 1}
    assert isinstance(result["twins"], dict)
    tank = result["twins"]["tank-1"]["states"]
    assert set(tank) == {"h1", "h2", "h3", "h4"}
    assert tank["h1"]["rmse_raw"] > 2 * tank["h1"]["rmse_twin"]
    assert tank["h3"]["rmse_raw"] is None


async def test_every_process_killed_once_heals_and_nothing_is_lost(tmp_path: Path) -> None:
    demo = await start(tmp_path, "--for", "24s", "--json")
    await until(tmp_path, demo, lambda: running(tmp_path))
    for name in ("edge-tank", "gateway", "cloud", "broker", "edge-car", "edge-zone"):
        before = processes(tmp_path)[name]
        os.kill(before, signal.SIGKILL)
        await until(tmp_path, demo, lambda name=name, before=before: processes(tmp_path)[name] != before)
        await asyncio.sleep(1.5)
    result = await finish(tmp_path, demo)
    assert (result["lost"], result["duplicates"]) == (0, 0)
    assert result["readings_applied"] == result["readings_committed"]
    assert result["restarts"] == 6


async def test_ctrl_c_stops_everything_within_three_seconds(tmp_path: Path) -> None:
    demo = await start(tmp_path)
    await until(tmp_path, demo, lambda: running(tmp_path))
    begun = time.monotonic()
    demo.send_signal(signal.SIGINT)
    await demo.communicate()
    assert time.monotonic() - begun < 3.0
    assert demo.returncode == 0
    assert all(gone(pid) for pid in processes(tmp_path).values())


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="util-linux is not installed")
async def test_a_killed_demo_leaves_nothing_running(tmp_path: Path) -> None:
    demo = await start(tmp_path)
    await until(tmp_path, demo, lambda: running(tmp_path))
    children = processes(tmp_path)
    demo.kill()
    await demo.communicate()
    deadline = time.monotonic() + 5.0
    while not all(gone(pid) for pid in children.values()) and time.monotonic() < deadline:
        await asyncio.sleep(0.1)
    assert {name for name, pid in children.items() if not gone(pid)} == set()
