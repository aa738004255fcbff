"""Debian's history servers for the tests, on free loopback ports."""

from __future__ import annotations

import http.client
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.conftest import require, take_port
from tests.history_proxy import rewriting_proxy


@contextmanager
def influxdb(folder: Path) -> Iterator[int]:
    """InfluxDB 1.6.7 behind the rewriting proxy; the proxy's port."""
    program, rpc, port = require("influxd"), take_port(), take_port()
    config = folder / "influxdb.conf"
    config.write_text(
        f'reporting-disabled = true\nbind-address = "127.0.0.1:{rpc}"\n'
        f'[meta]\ndir = "{folder}/meta"\n[data]\ndir = "{folder}/data"\nwal-dir = "{folder}/wal"\n'
        f'[http]\nbind-address = "127.0.0.1:{port}"\nlog-enabled = false\n'
        "[monitor]\nstore-enabled = false\n"
    )
    with running(program, ["-config", str(config)], port), rewriting_proxy(port) as proxy:
        yield proxy


@contextmanager
def running(program: str, arguments: Sequence[str], port: int) -> Iterator[None]:
    """A real server on a loopback port."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen([program, *arguments], **quiet)  # type: ignore[call-overload]
    try:
        for _ in range(200):
            try:
                ask(port, "GET", "/ping")
                break
            except OSError:
                assert process.poll() is None, f"{program} ended with {process.returncode}"
                process_wait(process, 0.05)
        yield
    finally:
        process.terminate()
        process.wait(timeout=10)


def process_wait(process: subprocess.Popen[bytes], seconds: float) -> None:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return


def ask(port: int, method: str, path: str) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request(method, path)
        return connection.getresponse().read()
    finally:
        connection.close()
