"""``twin-sim demo``: the closed loop on one machine, live on the screen or measured for ``--for`` seconds."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, redirect_stderr
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.live import Live

from simulators.demo import report, stage, story
from simulators.demo.cast import ROLES
from simulators.demo.children import CONFIG_EXIT, Children, run_once
from simulators.demo.client import Client
from simulators.demo.story import Board
from simulators.demo.view import draw
from wire.errors import ConfigError, Unavailable
from wire.runtime import service
from wire.runtime.observe import configure_logging

log = logging.getLogger("twinline.demo")

STARTUP_S = 60.0
DRAIN_S = 30.0
STOP_S = 2.5
"""How long a program may take to stop before it is killed; Ctrl-C promises 3 s for everything."""


@dataclass(frozen=True)
class Options:
    """The command line."""

    duration_s: float | None
    """None: until Ctrl-C."""
    as_json: bool
    state: Path | None
    configs: Path
    embedded: bool


def main(argv: Sequence[str]) -> int:
    """Run the demo; returns the exit code."""
    options = _options(argv)
    with ExitStack() as leaving:
        state = options.state
        if state is None:
            state = Path(tempfile.mkdtemp(prefix="twinline-"))
            leaving.callback(shutil.rmtree, state, ignore_errors=True)
        try:
            scene = stage.prepare(state, options.configs, embedded=options.embedded)
        except ConfigError as error:
            sys.stderr.write(f"{error}\n")
            return CONFIG_EXIT
        log_beside(scene, options, leaving)
        return service.run("demo", lambda: play(scene, options))


def log_beside(scene: stage.Stage, options: Options, leaving: ExitStack) -> None:
    """A live picture and log lines cannot share a terminal: then the log goes to a file."""
    if options.as_json or not sys.stdout.isatty():
        configure_logging()
    else:
        file = leaving.enter_context((scene.state / "logs" / "demo.log").open("a", encoding="utf-8"))
        with redirect_stderr(file):
            configure_logging()
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it tells of every single request


async def play(scene: stage.Stage, options: Options) -> None:
    """The whole evening: curtain up, the run, the drain, the figures, curtain down."""
    children, board = Children(scene.state), Board()
    async with asyncio.TaskGroup() as tasks:
        try:
            await _act(scene, options, children, board, tasks)
        finally:
            await children.stop_all(STOP_S, last=stage.BROKER)


async def _act(
    scene: stage.Stage, options: Options, children: Children, board: Board, tasks: asyncio.TaskGroup
) -> None:
    await run_once(scene.make_keys())
    children.start(tasks, scene.broker(), scene.cloud(), scene.simulators(), scene.gateway())
    async with Client(scene.url, scene.token_file.read_text().strip()) as client:
        await curtain_up(scene, children, board, client, tasks)
        started_ns = time.time_ns()
        await _perform(scene, options, children, board, client)
        if options.duration_s is not None:
            half_ns = started_ns + int(options.duration_s * 0.5e9)
            result = await curtain_down(scene, children, client, half_ns)
            if options.as_json:
                sys.stdout.write(json.dumps(result.as_dict()) + "\n")
            else:
                Console().print(report.draw(result))


async def curtain_up(
    scene: stage.Stage, children: Children, board: Board, client: Client, tasks: asyncio.TaskGroup
) -> None:
    """The twins are registered before the first reading, so that every reading finds its twin."""
    try:
        async with asyncio.timeout(STARTUP_S):
            log.info("waiting for the cloud")
            await story.until_answering(client)
            log.info("registering types and twins")
            await run_once(scene.apply())
            children.start(tasks, *scene.edges())
            log.info("waiting for the first readings")
            await story.until_alive(client, board)
    except TimeoutError:
        missing = [role.twin for role in ROLES if role.twin not in board.twins]
        raise Unavailable(f"not alive after {STARTUP_S:.0f} s: {', '.join(missing)}; see {scene.state}/logs") from None


async def _perform(scene: stage.Stage, options: Options, children: Children, board: Board, client: Client) -> None:
    """The run itself: setpoints, and the picture."""
    duration_s = options.duration_s
    board.note, board.begun = "running" if duration_s else "running, Ctrl-C stops", time.monotonic()
    log.info("all twins are alive, the run begins; see %s", scene.url)
    outboxes = [scene.outbox(name) for name in (*stage.EDGES, stage.GATEWAY)]
    try:
        async with asyncio.timeout(duration_s), asyncio.TaskGroup() as tasks:
            tasks.create_task(story.keep_fresh(client, board, outboxes), name="refresh")
            tasks.create_task(story.perform(client, board, duration_s or 60.0), name="story")
            if not options.as_json:
                tasks.create_task(_show(lambda: board, children), name="view")
            await asyncio.Event().wait()
    except TimeoutError:
        return


async def _show(board: Callable[[], Board], children: Children) -> None:
    with Live(console=Console(), refresh_per_second=4, screen=sys.stdout.isatty()) as live:
        while True:
            live.update(draw(board().scene(children.restarts, time.monotonic())))
            await asyncio.sleep(0.25)


async def curtain_down(scene: stage.Stage, children: Children, client: Client, half_ns: int) -> report.Result:
    """Plants first, then the edges once their last word has arrived, then count at both ends."""
    await children.stop(stage.SIMULATORS)
    await story.drained([scene.outbox(name) for name in (*stage.EDGES, stage.GATEWAY)], DRAIN_S)
    await children.stop(*stage.EDGES)
    return await report.collect(scene, client, half_ns, children.restarts)


def _options(argv: Sequence[str]) -> Options:
    parser = argparse.ArgumentParser(prog="twin-sim demo", description=__doc__)
    parser.add_argument("--for", dest="duration", metavar="TIME", type=_seconds, help="stop after e.g. 60s or 2m")
    parser.add_argument(
        "--json", dest="as_json", action="store_true", help="no screen; figures as JSON on the last line"
    )
    parser.add_argument("--state", metavar="DIR", type=Path, help="keep everything here (default: a temporary place)")
    parser.add_argument("--configs", metavar="DIR", type=Path, default=Path(__file__).parents[2] / "configs")
    parser.add_argument("--embedded-broker", action="store_true", help="do not use mosquitto even if it is there")
    given = parser.parse_args(argv)
    if given.as_json and given.duration is None:
        parser.error("--json needs --for")
    return Options(given.duration, given.as_json, given.state, given.configs, given.embedded_broker)


def _seconds(text: str) -> float:
    """``60s``, ``2m`` or plain seconds."""
    factor = {"s": 1.0, "m": 60.0, "h": 3600.0}.get(text[-1:])
    seconds = float(text[:-1]) * factor if factor else float(text)
    if not 0 < seconds < float("inf"):
        raise ValueError(text)
    return seconds
