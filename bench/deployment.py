"""A whole Twinline on loopback, made for one measurement: mosquitto, the bare plant, one edge, gateway, cloud.

Everything runs as the installed commands in processes of their own, on free ports, in one temporary folder; whatever
was started is stopped by its id.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from bench.plant import REGISTERS

SCRIPTS = Path(sys.executable).parent
ROOT = Path(__file__).parents[1]
BROKER = """listener {port} 127.0.0.1
allow_anonymous true
persistence false
max_queued_messages 0
max_inflight_messages 0
set_tcp_nodelay true
log_type error
"""
PROFILE = """profile: bare
kind: modbus
points:
{points}
"""
TYPED_TWIN = """twin: t{index}
of: signal
with: {{unit: V, noise: 0.5 V}}
bind: {{value: bench/edge-1/d{device}/r{register}}}
"""


def free_port() -> int:
    """One loopback port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def free_block(size: int) -> int:
    """First of ``size`` consecutive loopback ports that are free now."""
    for base in range(21_000, 31_000, size):
        sockets = []
        try:
            for offset in range(size):
                probe = socket.socket()
                sockets.append(probe)
                probe.bind(("127.0.0.1", base + offset))
        except OSError:
            continue
        finally:
            for probe in sockets:
                probe.close()
        return base
    raise SystemExit("no block of free ports on loopback")


@dataclass(frozen=True)
class Usage:
    """What one process has used: CPU seconds since its start, resident bytes now."""

    cpu_s: float
    rss: int


class Processes:
    """Started processes by name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, *command: str) -> subprocess.Popen[bytes]:
        """Start one; its output goes to ``<name>.log``."""
        with (self.folder / f"{name}.log").open("ab") as log:
            self._running[name] = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=ROOT)
        return self._running[name]

    def stop(self, name: str, number: signal.Signals = signal.SIGTERM) -> None:
        """End one and wait for it."""
        process = self._running.pop(name)
        process.send_signal(number)
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def stop_all(self) -> None:
        """End everything, last started first."""
        for name in reversed(list(self._running)):
            self.stop(name)

    def usage(self, name: str) -> Usage:
        """CPU and memory of one process."""
        process = psutil.Process(self._running[name].pid)
        times = process.cpu_times()
        return Usage(times.user + times.system, process.memory_info().rss)


class Deployment:
    """One measured installation of ``devices`` devices with ten values each, one `signal` twin a value."""

    def __init__(self, processes: Processes, *, devices: int, period_s: float) -> None:
        self.processes, self.devices, self.period_s = processes, devices, period_s
        self.folder = processes.folder
        self.mqtt_port, self.api_port = free_port(), free_port()
        self.plant_base = free_block(devices + 1)
        self._client: httpx.Client | None = None

    def start_field(self) -> None:
        """Broker and plant."""
        (self.folder / "mosquitto.conf").write_text(BROKER.format(port=self.mqtt_port))
        self.start_broker()
        self.processes.start("plant", sys.executable, "-m", "bench.plant", str(self.plant_base), str(self.devices))
        wait_port(self.plant_base + self.devices - 1)

    def start_broker(self) -> None:
        """The broker alone, as after a crash."""
        program = shutil.which("mosquitto", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
        if program is None:
            raise SystemExit("the bench needs Debian's mosquitto (apt-get install mosquitto)")
        self.processes.start("broker", program, "-c", str(self.folder / "mosquitto.conf"))
        wait_port(self.mqtt_port)

    def start_pipeline(self) -> None:
        """Keys, configuration, cloud with its twins, gateway, edge."""
        run(SCRIPTS / "twin", "keys", "init", str(self.folder / "keys"))
        self._write_configs()
        self.processes.start("cloud", str(SCRIPTS / "twin-cloud"), str(self.folder / "cloud.yaml"))
        wait_port(self.api_port)
        token = (self.folder / "keys" / "token").read_text().strip()
        self._client = httpx.Client(
            base_url=f"http://127.0.0.1:{self.api_port}", headers={"authorization": f"Bearer {token}"}, timeout=60
        )
        environment = {
            "TWINLINE_API": f"http://127.0.0.1:{self.api_port}",
            "TWINLINE_TOKEN_FILE": str(self.folder / "keys" / "token"),
        }
        run(SCRIPTS / "twin", "apply", str(self.folder / "twins.yaml"), environment=environment)
        self.processes.start("gateway", str(SCRIPTS / "twin-gateway"), str(self.folder / "gateway.yaml"))
        self.processes.start("edge", str(SCRIPTS / "twin-edge"), str(self.folder / "edge.yaml"))

    def stats(self) -> dict[str, Any]:
        """The cloud's own figures."""
        assert self._client is not None
        answer = self._client.get("/v1/stats").raise_for_status().json()
        assert isinstance(answer, dict)
        return answer

    def _write_configs(self) -> None:
        link = f"{{kind: mqtt, host: 127.0.0.1, port: {self.mqtt_port}}}"
        points = "\n".join(
            f"  - {{point: r{i}, unit: V, table: input, address: {i}, type: uint16}}" for i in range(REGISTERS)
        )
        devices = "\n".join(
            f"  - {{device: d{d}, kind: modbus, profile: profile.yaml, host: 127.0.0.1, "
            f"port: {self.plant_base + d}, period: {round(self.period_s * 1000)} ms}}"
            for d in range(self.devices)
        )
        write = lambda name, text: (self.folder / name).write_text(text)  # noqa: E731 - five lines below read better
        write("profile.yaml", PROFILE.format(points=points))
        write(
            "edge.yaml",
            f"edge: edge-1\nsite: bench\ngateway: gw-1\nstate: {self.folder}/edge\nlink: {link}\ndevices:\n{devices}\n",
        )
        write(
            "gateway.yaml", f"gateway: gw-1\nsite: bench\nstate: {self.folder}/gateway\nsouth: {link}\nnorth: {link}\n"
        )
        write("cloud.yaml", (
            f"cloud: bench\nstate: {self.folder}/cloud\nlink: {link}\nhistory: {{kind: sqlite}}\n"
            f"checkpoint: {{kind: sqlite}}\nkeys: {self.folder}/keys\n"
            f"api: {{host: 127.0.0.1, port: {self.api_port}, token_file: {self.folder}/keys/token}}\n"
        ))  # fmt: skip
        write("twins.yaml", "---\n".join(
            TYPED_TWIN.format(index=d * REGISTERS + r, device=d, register=r)
            for d in range(self.devices) for r in range(REGISTERS)
        ))  # fmt: skip


@contextmanager
def deployment(folder: Path, *, devices: int, period_s: float, pipeline: bool = True) -> Iterator[Deployment]:
    """Start, hand out, and stop whatever happens."""
    folder.mkdir(parents=True)
    with ExitStack() as stack:
        processes = Processes(folder)
        stack.callback(processes.stop_all)
        made = Deployment(processes, devices=devices, period_s=period_s)
        made.start_field()
        if pipeline:
            made.start_pipeline()
        yield made


def wait_port(port: int, seconds: float = 30.0) -> None:
    """Return when the loopback port listens."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.002)
    raise SystemExit(f"nothing listens on port {port} after {seconds} s")


def wait_until(predicate: Callable[[], bool], seconds: float, what: str) -> None:
    """Poll until true, or stop the bench and say what did not happen."""
    deadline = time.monotonic() + seconds
    while not predicate():
        if time.monotonic() > deadline:
            raise SystemExit(f"not within {seconds} s: {what}")
        time.sleep(0.1)


def run(program: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> None:
    """Run a command to its end; its error is ours."""
    env = os.environ | dict(environment or {})
    done = subprocess.run([str(program), *arguments], capture_output=True, text=True, check=False, env=env)
    if done.returncode:
        raise SystemExit(f"{program.name} {' '.join(arguments)} failed:\n{done.stdout}{done.stderr}")
