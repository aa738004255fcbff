"""``twin-edge`` as a process: checks, starts small, stops clean, and survives being killed."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from edge.main import main
from tests.edge.modbus_stub import Stub, serving
from tests.edge.test_agent import Eventually, files
from wire.runtime.outbox import Outbox

RSS_MB = 60


@pytest.fixture(autouse=True)
def _own_logging() -> Iterator[None]:
    """The program takes over the root logger; the tests after it get theirs back."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for library in ("pymodbus", "asyncua"):
        logging.getLogger(library).setLevel(logging.NOTSET)


def test_a_sound_file_is_said_to_be_ready(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([files(tmp_path, 502), "--check"]) == 0
    assert "3 points on 1 devices, ready" in capsys.readouterr().out
    assert not (tmp_path / "state").exists(), "a check touches nothing"


def test_every_defect_is_a_line_and_the_exit_code_is_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = Path(files(tmp_path, 502))
    path.write_text(path.read_text().replace("period", "perriod").replace("site: demo", "site: De mo"))
    assert main([str(path)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(":")[1] for line in lines] == ["2", "8"]
    assert "did you mean `period`?" in lines[1]


def start(config: str) -> subprocess.Popen[bytes]:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.Popen([sys.executable, "-m", "edge.main", config], stderr=subprocess.PIPE, env=environment)


@pytest.mark.flow
async def test_it_starts_small_and_stops_clean(tmp_path: Path, mosquitto: Any, eventually: Eventually) -> None:
    async with serving(Stub()) as stub:
        config = Path(files(tmp_path, stub.port))
        (tmp_path / "car.yaml").write_text("profile: car\nkind: mqtt\npoints: [{point: speed, topic: car/speed}]\n")
        device = f"  - {{device: car, kind: mqtt, profile: car.yaml, broker: {{port: {mosquitto.port}}}}}\n"
        config.write_text(config.read_text().replace("{kind: mqtt}", f"{{port: {mosquitto.port}}}") + device)
        outbox = tmp_path / "state" / "outbox.db"
        process = start(str(config))
        try:
            await eventually(lambda: outbox.exists() and stub.requests > 50, 20)
            assert Outbox.inspect(outbox).committed_readings > 20
            assert psutil.Process(process.pid).memory_info().rss < RSS_MB * 1e6
            loaded = Path(f"/proc/{process.pid}/maps").read_text()
            assert "numpy" not in loaded
            process.send_signal(signal.SIGTERM)
            _, errors = await asyncio.to_thread(process.communicate, timeout=5)
        finally:
            process.kill()
            await asyncio.to_thread(process.wait)
        assert process.returncode == 0, errors.decode()
        assert b"Traceback" not in errors


@pytest.mark.flow
async def test_killed_it_goes_on_where_it_was(tmp_path: Path, mosquitto: Any, eventually: Eventually) -> None:
    async with serving(Stub()) as stub:
        config = Path(files(tmp_path, stub.port))
        config.write_text(config.read_text().replace("{kind: mqtt}", f"{{port: {mosquitto.port}}}"))
        outbox = tmp_path / "state" / "outbox.db"
        committed = 0
        for _ in range(3):
            process, asked = start(str(config)), stub.requests
            try:
                await eventually(lambda asked=asked: stub.requests > asked + 20, 20)
            finally:
                process.kill()
                await asyncio.to_thread(process.communicate)
            totals = Outbox.inspect(outbox)
            assert totals.committed_readings > committed
            assert totals.dropped_readings == 0
            committed = totals.committed_readings


def test_nothing_heavy_is_imported_at_the_edge() -> None:
    code = "import sys, edge.main, edge.drivers.mqtt, edge.drivers.modbus; print(*sys.modules)"
    loaded = set(subprocess.check_output([sys.executable, "-c", code], text=True).split())
    assert not loaded & {"numpy", "pint", "sympy", "typer", "rich", "asyncua", "starlette", "wire.units"}
    assert not loaded & {"cryptography", "wire.signing"}, "only an edge that trusts somebody verifies signatures"
