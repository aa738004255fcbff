"""The bench runs and prints what it promises; its figures are judged by people, not here."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.flow
@pytest.mark.timeout(110)
def test_a_figure_is_a_json_line(server_program: Callable[[str], str]) -> None:
    server_program("mosquitto")
    done = subprocess.run(
        [sys.executable, "-m", "bench", "--quick", "--only", "throughput"],
        cwd=ROOT, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    machine, figure = (json.loads(line) for line in done.stdout.splitlines())
    assert machine["figure"] == "machine"
    assert figure["figure"] == "throughput"
    assert figure["lost"] == 0
    assert figure["readings_per_s"] > 1_000
