"""Every command in the README is run, as it is written."""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
BLOCKS = [block.strip().splitlines() for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL)]
ENVIRONMENT = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin", "COLUMNS": "100"}

pytestmark = pytest.mark.flow


def test_the_blocks_are_the_ones_that_are_run_here() -> None:
    assert [len(block) for block in BLOCKS] == [2, 1, 16]


def test_make_test_is_a_target() -> None:
    assert BLOCKS[0] == ["make run", "make test"]
    done = subprocess.run(["make", "-n", "test"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "pytest" in done.stdout


@pytest.mark.timeout(100)
def test_make_run_shows_the_twins_and_stops_within_three_seconds(server_program: Callable[[str], str]) -> None:
    server_program("mosquitto")
    screen, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (60, 140))
    os.set_blocking(screen, False)
    process = subprocess.Popen(
        ["make", "run"],
        cwd=ROOT,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env=ENVIRONMENT | {"TERM": "xterm"},
        start_new_session=True,
    )
    shown = ""
    try:
        deadline = time.monotonic() + 40
        while not all(word in shown for word in ("tank-1", "nobody measures", "verified")):
            assert time.monotonic() < deadline, shown[-3000:]
            time.sleep(0.1)
            with suppress(BlockingIOError):
                shown += os.read(screen, 1 << 20).decode(errors="replace")
        asked = time.monotonic()
        os.killpg(process.pid, signal.SIGINT)
        process.wait(timeout=20)
        assert time.monotonic() - asked < 3.5
    finally:
        end(process)
        os.close(screen)
        os.close(terminal)


@pytest.mark.timeout(120)
def test_make_run_with_figures() -> None:
    (line,) = BLOCKS[1]
    assert line == 'make run ARGS="--for 60s --json"'
    command = shlex.split(line.replace("60s", "20s"))
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=ENVIRONMENT, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures["readings_committed"] > 300
    assert figures["readings_applied"] == figures["readings_committed"]
    assert (figures["lost"], figures["duplicates"]) == (0, 0)
    assert figures["setpoints"]["verified"] >= 2
    assert figures["setpoints"]["rejected"] >= 1
    assert set(figures["twins"]) == {"tank-1", "zone-1", "car-1"}


@pytest.fixture
def environment(free_port: Callable[[], int]) -> dict[str, str]:
    """The README's own variables, so that its lines can run beside whatever else listens here."""
    ports = {name: str(free_port()) for name in ("MQTT_PORT", "API_PORT", "DEVICE_PORT")}
    api = {"TWINLINE_API": f"http://127.0.0.1:{ports['API_PORT']}"}
    return ENVIRONMENT | ports | api


@pytest.fixture
def background(tmp_path: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for process in reversed(started):
        end(process)


@pytest.mark.timeout(120)
def test_your_own_device_in_five_minutes(
    tmp_path: Path,
    environment: dict[str, str],
    background: list[subprocess.Popen[bytes]],
    server_program: Callable[[str], str],
) -> None:
    server_program("mosquitto")
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    printed: dict[str, str] = {}
    for line in filter(None, BLOCKS[2]):
        if line.startswith("export "):
            name = line.removeprefix("export ").partition("=")[0]
            environment[name] = patiently(f'{line}; echo -n "${name}"', tmp_path, environment)
        elif line.endswith("&"):
            with (tmp_path / "log").open("ab") as log:
                background.append(
                    subprocess.Popen(
                        ["bash", "-c", "exec " + line.removesuffix("&")],
                        cwd=tmp_path, env=environment, stdout=log, stderr=log,
                    )
                )  # fmt: skip
        else:
            printed[line] = patiently(line, tmp_path, environment)
    assert all(process.poll() is None for process in background), (tmp_path / "log").read_text()
    assert "level-1" in printed["twin list"]
    assert "cm" in printed["twin now level-1"]
    assert "verified" in printed["twin set pump-1 output 3.5"].lower()


def patiently(line: str, folder: Path, environment: dict[str, str], seconds: float = 25.0) -> str:
    """Run a line as a person would: once more while the program it talks to is still starting."""
    deadline = time.monotonic() + seconds
    while True:
        done = subprocess.run(
            ["bash", "-c", line], cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        if done.returncode == 0:
            return done.stdout
        assert time.monotonic() < deadline, f"{line}\n{done.stdout}{done.stderr}\n{(folder / 'log').read_text()}"
        time.sleep(0.3)


def end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
