"""Child processes that come back when they die."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from wire.errors import ConfigError, Unavailable

log = logging.getLogger("twinline.demo")

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 2.0
STEADY_S = 5.0
"""A child that lived this long starts again after the shortest pause."""
CONFIG_EXIT = 2


@dataclass(frozen=True)
class Program:
    """One command line and where its output goes."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log_file: Path


class Child:
    """One program, started again whenever it dies, until it is told to stop.

    A program that exits with the code of a wrong configuration is not started again: `run` raises ConfigError with the
    end of its output.
    """

    def __init__(self, program: Program, *, changed: Callable[[], None], clock: Callable[[], float] = time.monotonic):
        self.program = program
        self.restarts = 0
        self.pid: int | None = None
        self._changed = changed
        self._clock = clock
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Keep the program alive until `stop`."""
        pause = FIRST_PAUSE_S
        try:
            while not self._stopping.is_set():
                begun = self._clock()
                code = await self._live()
                if self._stopping.is_set():
                    return
                if code == CONFIG_EXIT:
                    raise ConfigError.at(self.program.name, self._last_words())
                self.restarts += 1
                log.warning("%s ended with %s, starting it again", self.program.name, code)
                pause = FIRST_PAUSE_S if self._clock() - begun > STEADY_S else min(2 * pause, LONGEST_PAUSE_S)
                await asyncio.sleep(pause)
        finally:
            if self._process is not None and self._process.returncode is None:
                self._process.kill()
                await self._process.wait()

    async def stop(self, within_s: float) -> None:
        """Ask it to end; kill it if it has not ended in time."""
        self._stopping.set()
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(within_s):
                await process.wait()
        except TimeoutError:
            log.warning("%s did not stop within %.1f s, killed", self.program.name, within_s)
            process.kill()
            await process.wait()

    async def _live(self) -> int:
        # A session of its own: Ctrl-C in the terminal reaches the demo alone, which then stops things in order.
        with self.program.log_file.open("ab") as output:
            self._process = await asyncio.create_subprocess_exec(
                *self.program.command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=dict(self.program.environment),
                start_new_session=True,
            )
        self.pid = self._process.pid
        self._changed()
        return await self._process.wait()

    def _last_words(self) -> str:
        return _tail(self.program.log_file)


class Children:
    """All programs of the demo, by name; ``processes.json`` in the state directory tells who is who."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / "processes.json"
        self._children: dict[str, Child] = {}

    @property
    def restarts(self) -> int:
        return sum(child.restarts for child in self._children.values())

    def start(self, tasks: asyncio.TaskGroup, *programs: Program) -> None:
        """Start programs in the caller's task group."""
        for program in programs:
            child = Child(program, changed=self._note)
            self._children[program.name] = child
            tasks.create_task(child.run(), name=f"child/{program.name}")

    async def stop(self, *names: str, within_s: float = 2.0) -> None:
        """Stop some programs side by side; those not running are passed over."""
        async with asyncio.TaskGroup() as stopping:
            for name in names:
                if name in self._children:
                    stopping.create_task(self._children[name].stop(within_s), name=f"stop/{name}")

    async def stop_all(self, within_s: float = 2.0, *, last: str = "") -> None:
        """Stop everything side by side, then the one that the others say their farewell to."""
        await self.stop(*(name for name in self._children if name != last), within_s=within_s)
        await self.stop(last, within_s=within_s)

    def _note(self) -> None:
        pids = {name: child.pid for name, child in self._children.items()}
        part = self._file.with_suffix(".part")
        part.write_text(json.dumps(pids))
        part.replace(self._file)


async def run_once(program: Program, within_s: float = 30.0) -> None:
    """Run a program to its end; raises Unavailable with its last words if it fails."""
    with program.log_file.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            *program.command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=dict(program.environment),
            start_new_session=True,
        )
    try:
        async with asyncio.timeout(within_s):
            code = await process.wait()
    except TimeoutError:
        raise Unavailable(f"{program.name} did not end within {within_s:.0f} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if code:
        raise Unavailable(f"{program.name} failed ({code}): {_tail(program.log_file)}")


def _tail(path: Path, lines: int = 12) -> str:
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
