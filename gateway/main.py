"""``twin-gateway CONFIG``: the site gateway as a process."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from gateway.config import GatewayConfig
from gateway.relay import Relay
from wire.errors import ConfigError
from wire.runtime import files, service
from wire.runtime.observe import configure_logging


def main(argv: Sequence[str] | None = None) -> int:
    """Run until SIGTERM; exit code 0 for a clean stop, 2 for a wrong configuration, 1 for a crash."""
    parser = argparse.ArgumentParser(prog="twin-gateway", description="Twinline's site gateway.")
    parser.add_argument("config", help="configuration file, first key `gateway:`")
    parser.add_argument("--check", action="store_true", help="only check the file")
    parser.add_argument("--log-json", action="store_true", help="one JSON object per log line")
    given = parser.parse_args(argv)
    configure_logging(given.log_json)
    try:
        config = files.load(given.config, GatewayConfig)
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return service.EXIT_CONFIG
    if given.check:
        return service.EXIT_CLEAN
    return service.run("gateway", lambda: Relay(config).run())
