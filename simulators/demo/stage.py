"""Where the demo happens: ports, directories, and the command line of every program."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

from simulators.demo.children import Program
from wire.runtime import files

EDGES = ("edge-tank", "edge-zone", "edge-car")
SIMULATORS = "simulators"
GATEWAY = "gateway"
CLOUD = "cloud"
BROKER = "broker"


@dataclass(frozen=True)
class Ports:
    """One free port for every server."""

    broker: int
    modbus: int
    opcua: int
    api: int


@dataclass(frozen=True)
class Stage:
    """One run: its directories, ports and broker. All configuration reads these from the environment."""

    state: Path
    configs: Path
    ports: Ports
    mosquitto: str | None
    """Path of the broker's program, None to use the embedded one."""

    @property
    def truth(self) -> Path:
        """The file in which the simulators write what really happened."""
        return self.state / "truth.jsonl"

    @property
    def keys(self) -> Path:
        return self.state / "keys"

    @property
    def token_file(self) -> Path:
        return self.keys / "token"

    @property
    def history(self) -> Path:
        """The cloud's embedded history."""
        return self.state / "cloud" / "history.db"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.ports.api}"

    def outbox(self, name: str) -> Path:
        """The outbox file of one edge or gateway."""
        return self.state / name / "outbox.db"

    def environment(self) -> dict[str, str]:
        """What the configuration files in ``configs/demo`` refer to."""
        return dict(os.environ) | {
            "TWINLINE_STATE": str(self.state),
            "TWINLINE_TRUTH": str(self.truth),
            "MQTT_PORT": str(self.ports.broker),
            "MQTT_PROTOCOL": "5" if self.mosquitto else "3.1.1",
            "MODBUS_PORT": str(self.ports.modbus),
            "OPCUA_PORT": str(self.ports.opcua),
            "API_PORT": str(self.ports.api),
            "TWINLINE_API": self.url,
            "TWINLINE_TOKEN_FILE": str(self.token_file),
        }

    def program(self, name: str, *command: str) -> Program:
        """A command line of the demo, its output in ``logs/NAME.log``.

        Where util-linux is installed, the program is told to stop even if the demo itself is killed.
        """
        setpriv = shutil.which("setpriv")
        lifeline = (setpriv, "--pdeathsig", "TERM", "--") if setpriv else ()
        return Program(name, (*lifeline, *command), self.environment(), self.state / "logs" / f"{name}.log")

    def broker(self) -> Program:
        """mosquitto with a configuration of ours, or the embedded broker; neither keeps anything on disk."""
        if self.mosquitto is None:
            return self.program(BROKER, sys.executable, "-m", "simulators.broker", str(self.ports.broker))
        config = self.state / "mosquitto.conf"
        config.write_text(
            f"listener {self.ports.broker} 127.0.0.1\n"
            "allow_anonymous true\n"
            "persistence false\n"
            # a broker that changes its user would lose the order to stop when the demo is killed
            f"user {getpass.getuser()}\n"
            "set_tcp_nodelay true\n"
            "max_packet_size 2097152\n"
            "max_queued_messages 10000\n"
        )
        return self.program(BROKER, self.mosquitto, "-c", str(config))

    def simulators(self) -> Program:
        return self.program(SIMULATORS, script("twin-sim"), str(self.configs / "scenarios" / "demo.yaml"))

    def edges(self) -> list[Program]:
        return [self.program(name, script("twin-edge"), self._config(name)) for name in EDGES]

    def gateway(self) -> Program:
        return self.program(GATEWAY, script("twin-gateway"), self._config("gateway"))

    def cloud(self) -> Program:
        return self.program(CLOUD, script("twin-cloud"), self._config("cloud"))

    def make_keys(self) -> Program:
        return self.program("keys", script("twin"), "keys", "init", str(self.keys))

    def apply(self) -> Program:
        """Registers the demo's twin types and twins."""
        files = sorted(self.configs.glob("types/*.yaml")) + sorted(self.configs.glob("twins/*.yaml"))
        return self.program("apply", script("twin"), "apply", *map(str, files))

    def _config(self, name: str) -> str:
        return str(self.configs / "demo" / f"{name}.yaml")


def script(name: str) -> str:
    """A console script of this installation."""
    beside = Path(sys.executable).parent / name
    return str(beside) if beside.exists() else name


def free_ports(count: int) -> list[int]:
    """Ports nobody listens on now; all are held until all are found, so that they differ."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def prepare(state: Path, configs: Path, *, embedded: bool = False) -> Stage:
    """Make the directories and choose the ports and the broker."""
    for directory in (state, state / "logs"):
        files.make_folder(directory)
    where = os.environ.get("PATH", "") + os.pathsep + "/usr/sbin"
    mosquitto = None if embedded else shutil.which("mosquitto", path=where)
    return Stage(state.resolve(), configs.resolve(), Ports(*free_ports(4)), mosquitto)
