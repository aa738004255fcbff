"""An MQTT broker inside the project, for machines without mosquitto: amqtt with a configuration of ours.

It listens on loopback only, lets anyone there in, keeps nothing on disk and speaks MQTT 3.1.1 alone.
``python -m simulators.broker PORT`` runs it by itself.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from amqtt.broker import Broker
from amqtt.contexts import BrokerConfig, ListenerConfig, ListenerType
from amqtt.errors import BrokerError

from wire.errors import ConfigError, Unavailable
from wire.runtime import service
from wire.runtime.observe import configure_logging

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def configuration(port: int, host: str = "127.0.0.1") -> BrokerConfig:
    """One TCP listener, anonymous, no persistence, no system topics; ConfigError for an address off this machine."""
    if host not in LOOPBACK:
        raise ConfigError.at("broker", f"{host} is not a loopback address", "the embedded broker asks nobody's name")
    return BrokerConfig(
        listeners={"default": ListenerConfig(type=ListenerType.TCP, bind=f"{host}:{port}")},
        plugins={"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
    )


@asynccontextmanager
async def running(port: int, host: str = "127.0.0.1") -> AsyncIterator[None]:
    """A broker for as long as the block lasts; Unavailable if the port is taken."""
    broker = Broker(configuration(port, host))
    try:
        await broker.start()
    except BrokerError as error:
        raise Unavailable(f"no broker on {host}:{port}: {error}") from None
    try:
        yield
    finally:
        await broker.shutdown()


async def serve(port: int, host: str = "127.0.0.1") -> None:
    """Run until cancelled."""
    async with running(port, host):
        await asyncio.get_running_loop().create_future()


def main(argv: Sequence[str] | None = None) -> int:
    """The broker as a program; stops on SIGTERM and SIGINT."""
    parser = argparse.ArgumentParser(prog="twin-sim broker", description="Embedded MQTT 3.1.1 broker, loopback only.")
    parser.add_argument("port", type=int, help="TCP port")
    parser.add_argument("--host", default="127.0.0.1", choices=LOOPBACK, help="loopback address")
    options = parser.parse_args(argv)
    configure_logging()
    for library in ("amqtt", "transitions"):
        logging.getLogger(library).setLevel(logging.WARNING)
    return service.run("broker", lambda: serve(options.port, options.host))


if __name__ == "__main__":
    sys.exit(main())
