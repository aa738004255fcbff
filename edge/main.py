"""``twin-edge CONFIG``: the agent beside the machine."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence

from edge import assembly
from edge.agent import Agent
from wire.errors import ConfigError
from wire.runtime import observe, service

_LOUD_LIBRARIES = ("pymodbus", "asyncua")
"""They log every failed attempt; the agent says once what it means."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 clean stop, 1 crash, 2 configuration that cannot be used."""
    parser = argparse.ArgumentParser(
        prog="twin-edge", description="Reads devices, keeps every reading until the gateway has it, obeys setpoints."
    )
    parser.add_argument("config", help="the edge's YAML file")
    parser.add_argument("--check", action="store_true", help="check the file, its profiles and its trust, then stop")
    parser.add_argument("--json", action="store_true", help="log one JSON object per event")
    options = parser.parse_args(arguments)
    observe.configure_logging(options.json)
    for library in _LOUD_LIBRARIES:
        logging.getLogger(library).setLevel(logging.CRITICAL)
    try:
        whole = assembly.read(options.config)
    except ConfigError as error:
        for problem in error.problems:
            sys.stderr.write(f"{problem}\n")
        return service.EXIT_CONFIG
    if options.check:
        points = len(whole.schema.points)
        sys.stdout.write(f"{options.config}: {points} points on {len(whole.points)} devices, ready\n")
        return service.EXIT_CLEAN
    return service.run("edge", Agent(whole).run)


if __name__ == "__main__":
    sys.exit(main())
