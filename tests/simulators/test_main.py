"""``twin-sim`` as a program: exit codes, servers, truth and a clean stop."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

CONFIGS = Path(__file__).parents[2] / "configs"
SCENARIO = """
scenario: test
seed: 1
truth: {truth}
devices:
  - device: tank
    plant: tank
    profile: {configs}/profiles/tank-modbus.yaml
    serve: {{kind: modbus, port: {port}}}
"""


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "simulators.main", *arguments],
        cwd=CONFIGS.parent,
        env=dict(os.environ) | {"PYTHONPATH": str(CONFIGS.parent)},
        stderr=subprocess.PIPE,
        text=True,
    )


def write(folder: Path, port: int) -> Path:
    file = folder / "scenario.yaml"
    file.write_text(SCENARIO.format(truth=folder / "truth.jsonl", configs=CONFIGS, port=port))
    return file


def test_a_right_scenario_passes_the_check(tmp_path: Path, free_port: Callable[[], int]) -> None:
    process = start(str(write(tmp_path, free_port())), "--check")
    assert process.wait(20) == 0
    assert not (tmp_path / "truth.jsonl").exists()
    process.communicate()


def test_a_wrong_one_ends_with_two_and_says_where(tmp_path: Path, free_port: Callable[[], int]) -> None:
    file = write(tmp_path, free_port())
    file.write_text(file.read_text().replace("seed: 1", "seeds: 1"))
    process = start(str(file))
    _, said = process.communicate(timeout=20)
    assert process.returncode == 2
    assert f"{file}:3:1: unknown key `seeds` (did you mean `seed`?)" in said
    assert "Traceback" not in said


def test_it_runs_writes_the_truth_and_stops_at_once(tmp_path: Path, free_port: Callable[[], int]) -> None:
    process = start(str(write(tmp_path, free_port())))
    truth = tmp_path / "truth.jsonl"
    deadline = time.monotonic() + 20
    while not truth.exists() or len(truth.read_text().splitlines()) < 5:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    begun = time.monotonic()
    assert process.wait(10) == 0
    assert time.monotonic() - begun < 3.0
    _, said = process.communicate()
    assert "Traceback" not in said
    lines = [json.loads(line) for line in truth.read_text().splitlines()]
    assert abs(lines[0]["t_ns"] - time.time_ns()) < 60_000_000_000
    assert {after["t_ns"] - before["t_ns"] for before, after in pairwise(lines)} == {100_000_000}


def test_the_embedded_broker_stays_on_loopback() -> None:
    process = start("broker", "1883", "--host", "0.0.0.0")
    _, said = process.communicate(timeout=20)
    assert process.returncode == 2
    assert "invalid choice" in said
