"""``twin-cloud CONFIG``: worker, setpoint ledger, controllers and API as one process."""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cloud.api.app import Cloud, create_app
from cloud.api.server import serve
from cloud.bank import Bank
from cloud.checkpoint.base import Checkpoint
from cloud.checkpoint.memory import MemoryCheckpoint
from cloud.checkpoint.sqlite import SqliteCheckpoint
from cloud.commands.ledger import Ledger
from cloud.commands.service import Commands
from cloud.config import CloudConfig
from cloud.control.runner import controllers
from cloud.history.base import History
from cloud.provision.registry import Registry
from cloud.worker import Worker
from wire.errors import BadData, ConfigError
from wire.runtime import files, plugins, service
from wire.runtime.mqtt import MqttLink
from wire.runtime.observe import Counters, configure_logging
from wire.signing import key_from_pem, key_id

log = logging.getLogger("twinline.cloud")


def main(argv: Sequence[str] | None = None) -> int:
    """Run until SIGTERM; exit code 0 for a clean stop, 2 for a wrong configuration, 1 for a crash."""
    parser = argparse.ArgumentParser(prog="twin-cloud", description="Twinline's cloud: twins, stores, setpoints, API.")
    parser.add_argument("config", help="configuration file, first key `cloud:`")
    parser.add_argument("--check", action="store_true", help="only check the file and the keys it names")
    parser.add_argument("--log-json", action="store_true", help="one JSON object per log line")
    given = parser.parse_args(argv)
    configure_logging(given.log_json)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it tells of every single request
    try:
        config = files.load(given.config, CloudConfig)
        key, token = read_key(config), read_token(config)
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return service.EXIT_CONFIG
    if given.check:
        return service.EXIT_CLEAN
    gc.freeze()  # what is loaded stays for good: no collection, not even the last one at exit, looks through it again
    return service.run("cloud", lambda: run(config, key, token))


def read_key(config: CloudConfig) -> Ed25519PrivateKey:
    """The signing key; raises ConfigError if it is missing, open to others or no key."""
    path = Path(config.keys) / "cloud.key"
    try:
        return key_from_pem(files.read_secret(path))
    except BadData as error:
        raise ConfigError.at(str(path), error.detail, "make one with `twin keys init`") from None


def read_token(config: CloudConfig) -> str:
    """The API's token; raises ConfigError if it is missing, open to others or too short to be one."""
    token = files.read_secret(config.api.token_file).strip()
    if len(token) < 16 or not token.isascii():
        raise ConfigError.at(config.api.token_file, "a token has at least 16 ASCII characters", "see `twin keys init`")
    return token.decode()


async def run(config: CloudConfig, key: Ed25519PrivateKey, token: str) -> None:
    """Everything, until cancelled. Stores close after the tasks that use them have ended."""
    state, now = Path(config.state), time.time_ns
    async with (
        open_history(config, state) as history,
        open_checkpoint(config, state) as checkpoint,
        Registry(state / "registry.db", now=now) as registry,
        Ledger(state / "ledger.db") as ledger,
        asyncio.TaskGroup() as tasks,
    ):
        worker = Worker(
            MqttLink(config.link, f"cloud-{config.cloud}"),
            Bank(),
            history,
            checkpoint,
            registry,
            on_results=lambda results: commands.on_results(results),
            now=now,
        )
        setpoints = MqttLink(config.link, f"cloud-{config.cloud}-setpoints")
        commands = Commands(ledger, setpoints, registry, worker.live, key=key, kid=key_id(key), now=now)
        app = create_app(Cloud(registry, worker.live, history, commands, now), token)
        parts = {
            "commands": commands.run,
            "api": lambda: serve(app, config.api.host, config.api.port),
        }
        loops = controllers(config.control, registry, worker.live, commands, now)
        parts |= {f"control/{item.control}": loop.run for item, loop in zip(config.control, loops, strict=True)}
        tasks.create_task(worker.run(), name="worker")
        tasks.create_task(setpoints.run(), name="setpoints/link")
        for name, part in parts.items():
            supervised = service.supervise(name, part, counters=Counters(), log=log, cap_s=5.0)
            tasks.create_task(supervised, name=name)


def open_history(config: CloudConfig, state: Path) -> History:
    """The history that the config names; only its own library is imported."""
    store: History = plugins.load("cloud.history", config.history.kind).open_store(config.history, state)
    return store


def open_checkpoint(config: CloudConfig, state: Path) -> Checkpoint:
    """The checkpoint that the config names."""
    return MemoryCheckpoint() if config.checkpoint.kind == "memory" else SqliteCheckpoint(state / "checkpoint.db")
