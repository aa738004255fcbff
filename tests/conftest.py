"""Fixtures and guards that every test gets.

Async tests are plain ``async def``: each runs in a fresh loop in debug-free mode with a deadline, and fails if it
leaves a task behind. Servers are the real ones; where one is not installed the test is skipped with a clear reason on
a laptop and fails when ``CI`` is set.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

ASYNC_DEADLINE_S = 60.0


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run coroutine tests, with a deadline and a check for leaked tasks."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    wanted = inspect.signature(pyfuncitem.obj).parameters
    arguments = {name: pyfuncitem.funcargs[name] for name in wanted if name in pyfuncitem.funcargs}
    marker = pyfuncitem.get_closest_marker("deadline")
    seconds = marker.args[0] if marker else ASYNC_DEADLINE_S

    async def guarded() -> None:
        async with asyncio.timeout(seconds):
            await pyfuncitem.obj(**arguments)
        own = asyncio.current_task()
        await asyncio.sleep(0)
        left = [task for task in asyncio.all_tasks() if task is not own and not task.done()]
        assert not left, f"tasks left running: {left}"

    asyncio.run(guarded())
    return True


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "deadline(seconds): how long an async test may take (default 60)")
    config.addinivalue_line("markers", "flow: starts whole processes and runs them against each other")


def require(program: str) -> str:
    """Path of a server program; without it the test is skipped, or fails where CI is set."""
    path = shutil.which(program) or shutil.which(program, path="/usr/sbin:/usr/local/sbin:/sbin")
    if path is None:
        reason = f"{program} is not installed (Debian: apt-get install {program})"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return path


def wait_for_port(port: int, process: subprocess.Popen[bytes] | None = None, seconds: float = 10.0) -> None:
    """Return when something listens on the loopback port."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=0.2):
                return
        except OSError:
            if process is not None and process.poll() is not None:
                raise AssertionError(f"server exited with {process.returncode}") from None
            if time.monotonic() > deadline:
                raise AssertionError(f"nothing listens on port {port} after {seconds} s") from None
            signal.sigtimedwait([], 0.02)


def take_port() -> int:
    """A loopback port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def free_port() -> Callable[[], int]:
    return take_port


async def poll(predicate: Callable[[], object] | Callable[[], Awaitable[object]], seconds: float = 10.0) -> None:
    """Wait until the predicate (sync or async) is true, or fail after the deadline."""
    deadline = time.monotonic() + seconds
    while True:
        outcome = predicate()
        if inspect.isawaitable(outcome):
            outcome = await outcome
        if outcome:
            return
        assert time.monotonic() < deadline, f"still not true after {seconds} s: {predicate}"
        await asyncio.sleep(0.01)


@pytest.fixture
def eventually() -> Callable[..., Awaitable[None]]:
    return poll


class Mosquitto:
    """A real broker without persistence on a loopback port; it can be killed and started again."""

    def __init__(self, program: str, folder: Path, port: int) -> None:
        self.port = port
        self._program = program
        self._config = folder / f"mosquitto-{port}.conf"
        self._config.write_text(
            f"listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\n"
            "max_queued_messages 0\nmax_inflight_messages 0\nmax_packet_size 4194304\nset_tcp_nodelay true\n"
            "log_type error\n"
        )
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(
            [self._program, "-c", str(self._config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_for_port(self.port, self._process)

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(timeout=10)
            self._process = None


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    broker = Mosquitto(require("mosquitto"), tmp_path, take_port())
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture
def server_program() -> Callable[[str], str]:
    """Look up a server's program: ``server_program("influxd")``."""
    return require
