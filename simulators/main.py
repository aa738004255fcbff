"""``twin-sim``: plants behind real servers.

::

    twin-sim SCENARIO.yaml [--check]    run a scenario until stopped, or only check its files
    twin-sim demo ...                   the whole pipeline on this machine, with a live view
    twin-sim broker PORT                the embedded MQTT broker
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import logging
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path

from simulators.assembly import assemble
from simulators.scenario import Scenario
from simulators.station import Station
from simulators.truth import TruthLog
from wire import settings
from wire.runtime import files, service
from wire.runtime.observe import Counters, configure_logging

log = logging.getLogger("twinline.simulators")

PROGRAMS = {"demo": "simulators.demo.main", "broker": "simulators.broker"}
LIBRARIES = ("asyncua", "pymodbus")
"""Their own chatter is of no use to who watches a plant."""
TRUTH_PERIOD_S = 0.1
TURN_S = 1.0
"""Plants that catch up after a pause give the servers a turn at least this often, in simulated time."""


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code: 0 stopped, 2 wrong configuration, 1 crash."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments and arguments[0] in PROGRAMS:
        program: Callable[[Sequence[str]], int] = importlib.import_module(PROGRAMS[arguments[0]]).main
        return program(arguments[1:])
    parser = argparse.ArgumentParser(
        prog="twin-sim", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("scenario", metavar="SCENARIO.yaml")
    parser.add_argument("--check", action="store_true", help="check the scenario and its profiles, then stop")
    options = parser.parse_args(arguments)
    configure_logging()
    for library in LIBRARIES:
        logging.getLogger(library).setLevel(logging.ERROR)
    return service.run("simulators", lambda: _run(options.scenario, check=options.check))


async def _run(path: str, *, check: bool) -> None:
    scenario, stations = assemble(settings.parse_one(files.read_text(path), path, os.environ), files.read_text)
    if not check:
        await run(scenario, stations)


async def run(scenario: Scenario, stations: Sequence[Station], now: Callable[[], int] = time.time_ns) -> None:
    """Serve and move every station until cancelled."""
    truth = TruthLog(Path(scenario.truth)) if scenario.truth else None
    with truth or nullcontext():
        async with asyncio.TaskGroup() as tasks:
            for station in stations:
                serving = service.supervise(
                    f"server of {station.name}", station.server.serve, counters=Counters(), log=log, cap_s=1.0
                )
                tasks.create_task(serving, name=f"serve/{station.name}")
            tasks.create_task(pace(stations, scenario.tick, truth, now), name="plants")


async def pace(stations: Sequence[Station], tick_s: float, truth: TruthLog | None, now: Callable[[], int]) -> None:
    """Move all plants in real time without drift: tick ``k`` belongs to ``k * tick_s`` after the start.

    A late turn does every tick it missed, each stamped with the time it belongs to. The wall clock is read once: a
    device's clock does not jump when somebody sets ours.
    """
    clock = asyncio.get_running_loop().time
    start, start_ns = clock(), now()
    every = max(1, round(TRUTH_PERIOD_S / tick_s))
    turn = max(1, round(TURN_S / tick_s))
    tick, tick_ns = 0, round(tick_s * 1e9)
    while True:
        late = clock() - start - tick * tick_s
        if late < 0.0:
            await asyncio.sleep(-late)
            continue
        if tick % turn == 0:
            await asyncio.sleep(0)
        stamp_ns = start_ns + tick * tick_ns
        for station in stations:
            station.advance(tick, tick_s, stamp_ns)
            if truth is not None and tick % every == 0:
                truth.write(stamp_ns, station.name, station.plant.state, station.labels(tick * tick_s))
        tick += 1


if __name__ == "__main__":
    sys.exit(main())
