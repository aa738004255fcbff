"""A whole small site for tests of flows: edge, gateway and cloud as processes of their own, on free loopback ports.

The devices are the test's own, in its event loop. Whatever is started here is stopped by its id.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from cloud.history.sqlite import ROW
from wire.quality import label
from wire.runtime.outbox import Outbox

SCRIPTS = Path(sys.executable).parent
PROFILE = """\
profile: plc
kind: modbus
points:
  - {point: level, unit: cm, table: input, address: 0, type: uint16, scale: 0.01, range: [0, 100]}
  - {point: pump, unit: V, table: input, address: 4, type: uint16, scale: 0.001}
  - point: pump-set
    unit: V
    table: holding
    address: 8
    type: uint16
    scale: 0.001
    write: {range: [0, 10], safe: 3.0, readback: pump, tolerance: 0.05, settle: 600 ms, dwell: 100 ms}
"""
OPCUA = """\
profile: zone
kind: opcua
namespace: urn:twinline:test
points:
  - {point: t, unit: degC, node: zone.t}
"""
TWINS = """\
twin: level-1
of: signal
with: {unit: cm, noise: 0.3 cm}
bind: {value: demo/edge-1/plc/level}
---
type: pump
version: 1.0.0
horizon: 10 s
states:
  voltage: {unit: V, initial: from measured, range: [0, 10]}
dynamics: {voltage: "0"}
process_noise: {voltage: 0.5 V/sqrt(s)}
offsets: none
sensors:
  measured: {measures: voltage, unit: V, noise: 0.02 V, period: 500 ms}
actuators:
  output:
    {unit: V, range: [0, 10], hold: 5 min, safe: 3 V, readback: {tolerance: 0.05 V, settle: 600 ms, dwell: 100 ms}}
---
twin: pump-1
of: pump@1
mode: act
bind:
  measured: demo/edge-1/plc/pump
  output: {write: demo/edge-1/plc/pump-set, read: demo/edge-1/plc/pump}
"""


@dataclass
class SmallSite:
    """The running site, seen from outside: its files, its API and its processes."""

    folder: Path
    mqtt_port: int
    api_port: int
    token: str = ""
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def api(self) -> str:
        return f"http://127.0.0.1:{self.api_port}"

    @property
    def environment(self) -> dict[str, str]:
        """What the ``twin`` command needs to find this site."""
        token_file = str(self.folder / "keys" / "token")
        return os.environ | {"TWINLINE_API": self.api, "TWINLINE_TOKEN_FILE": token_file, "COLUMNS": "200"}

    def start(self, name: str) -> None:
        """Start ``twin-<name>``; its output goes to ``<name>.log``."""
        command = [str(SCRIPTS / f"twin-{name}"), str(self.folder / f"{name}.yaml")]
        with (self.folder / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(command, stdout=log, stderr=log)

    async def end(self, name: str) -> int:
        """End one process and return its exit code; the test's own servers go on meanwhile."""
        return await asyncio.to_thread(self._stop, name)

    def _stop(self, name: str) -> int:
        process = self.running.pop(name)
        process.send_signal(signal.SIGTERM)
        try:
            return process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()

    def twin(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the ``twin`` command to its end."""
        command = [str(SCRIPTS / "twin"), *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, env=self.environment, timeout=30, check=False, cwd=self.folder
        )

    def all_alive(self) -> bool:
        """False once a process has ended by itself; its log says why."""
        return all(process.poll() is None for process in self.running.values())

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def committed(self) -> int:
        """Readings that the edge has ever committed."""
        return Outbox.inspect(self.folder / "edge" / "outbox.db").committed_readings

    def dead_letters(self) -> list[dict[str, Any]]:
        """What the gateway has set aside."""
        path = self.folder / "gateway" / "refused.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def events(self) -> list[tuple[str, str, str]]:
        """(kind, subject, text) of everything in the cloud's history."""
        return self._query("SELECT kind, subject, text FROM event")

    def qualities(self, device: str, point: str) -> Counter[str]:
        """How often each quality stands in the stored history of one point."""
        return Counter(quality for _, _, quality in self.readings(device, point))

    def readings(self, device: str, point: str, source: str = "demo/edge-1") -> list[tuple[int, float, str]]:
        """(time, value, quality) of every stored reading of one point, as written."""
        name, found = f"{source}/{device}/{point}", []
        chunks = "SELECT names, rows FROM chunk JOIN points ON points.id = points WHERE source = ? ORDER BY epoch, seq"
        for names, packed in self._query(chunks, source):
            rows, declared = np.frombuffer(packed, dtype=ROW), json.loads(names)
            mine = rows[rows["point"] == declared.index(name)] if name in declared else rows[:0]
            found += [(int(row["time"]), float(row["value"]), label(int(row["quality"]))) for row in mine]
        return found

    def stored(self, source: str = "demo/edge-1") -> tuple[int, int]:
        """(rows, distinct rows) of one source in the cloud's history."""
        packed = [row[0] for row in self._query("SELECT rows FROM chunk WHERE source = ?", source)]
        rows = np.frombuffer(b"".join(packed), dtype=ROW)
        return len(rows), len(np.unique(rows[["time", "point", "ordinal"]]))

    def _query(self, statement: str, *values: object) -> list[Any]:
        path = self.folder / "cloud" / "history.db"
        if not path.exists():
            return []
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5)) as database:
            return database.execute(statement, values).fetchall()


@asynccontextmanager
async def small_site(
    folder: Path, *, mqtt_port: int, api_port: int, devices: str, eventually: Callable[..., Awaitable[None]]
) -> AsyncIterator[SmallSite]:
    """Start cloud, gateway and edge with two twins applied, wait until readings are stored, stop whatever happens.

    ``devices`` are the lines of the edge's list; profiles ``plc.yaml`` (Modbus) and ``zone.yaml`` (OPC UA) are there.
    """
    site = SmallSite(folder, mqtt_port, api_port)
    try:
        made = await asyncio.to_thread(site.twin, "keys", "init", str(folder / "keys"))
        assert made.returncode == 0, made.stderr
        site.token = (folder / "keys" / "token").read_text().strip()
        _write_configs(site, devices)
        site.start("cloud")
        site.start("gateway")
        async with httpx.AsyncClient(base_url=site.api, headers={"authorization": f"Bearer {site.token}"}) as client:
            await eventually(lambda: _answers(client), 20)
            files = [{"file": "twins.yaml", "text": TWINS}]
            applied = await client.post("/v1/apply", json={"files": files})
            assert applied.status_code == 200, applied.text
        site.start("edge")
        await eventually(lambda: site.stored()[0] > 0, 20)
        yield site
    finally:
        for name in reversed(list(site.running)):
            await site.end(name)


async def _answers(client: httpx.AsyncClient) -> bool:
    try:
        return (await client.get("/v1/health")).status_code == 200
    except httpx.TransportError:
        return False


def _write_configs(site: SmallSite, devices: str) -> None:
    link = f"{{kind: mqtt, host: 127.0.0.1, port: {site.mqtt_port}}}"
    texts = {
        "plc": PROFILE,
        "zone": OPCUA,
        "edge": (
            "edge: edge-1\nsite: demo\ngateway: gw-1\nstate: edge\ntrust: keys/trust.yaml\n"
            f"link: {link}\ndevices:\n{devices}"
        ),
        "gateway": f"gateway: gw-1\nsite: demo\nstate: gateway\nsouth: {link}\nnorth: {link}\n",
        "cloud": (
            f"cloud: demo\nstate: cloud\nlink: {link}\nkeys: keys\n"
            f"api: {{host: 127.0.0.1, port: {site.api_port}, token_file: keys/token}}\n"
        ),
    }
    for name, text in texts.items():
        (site.folder / f"{name}.yaml").write_text(text)
