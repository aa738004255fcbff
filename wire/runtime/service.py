"""The life of a process: start, stop on a signal, restart of parts that fail, exit code."""

from __future__ import annotations

import asyncio
import logging
import random
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Iterator

from wire.errors import ConfigError
from wire.runtime.observe import Counters

EXIT_CLEAN, EXIT_CRASH, EXIT_CONFIG = 0, 1, 2

HEALTHY_AFTER_S = 30.0
"""A part that ran this long is forgiven its earlier failures."""


def run(name: str, main: Callable[[], Awaitable[None]]) -> int:
    """Run a daemon until it ends or is told to stop by SIGTERM or SIGINT; returns the process's exit code.

    0: clean stop. 2: ConfigError, each problem printed as one line. 1: crash, with its traceback in the log.
    """
    log = logging.getLogger(f"twinline.{name}")
    try:
        asyncio.run(_until_signal(name, main))
    except BaseExceptionGroup as group:
        return _exit_code(log, group)
    except ConfigError as error:
        return _exit_code(log, error)
    except KeyboardInterrupt:
        return EXIT_CLEAN
    return EXIT_CLEAN


async def supervise(
    name: str,
    factory: Callable[[], Awaitable[None]],
    *,
    counters: Counters,
    log: logging.Logger,
    cap_s: float = 30.0,
    fatal: tuple[type[BaseException], ...] = (ConfigError,),
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Run ``factory()`` again whenever it fails, with full-jitter back-off; returns when it returns.

    The first failure of a row is logged, the others only counted. ``fatal`` errors and cancellation pass.
    """
    pauses, lost = backoff(cap_s), False
    while True:
        started = clock()
        try:
            return await factory()
        except fatal:
            raise
        except Exception as error:  # the one place where a part may fail in a way nobody foresaw
            if _holds(error, fatal):
                raise
            if clock() - started > HEALTHY_AFTER_S:
                pauses, lost = backoff(cap_s), False
            counters.fail(type(error).__name__)
            if not lost:
                log.warning("%s failed, trying again: %s: %s", name, type(error).__name__, error)
            lost = True
        await asyncio.sleep(next(pauses))


def backoff(cap_s: float, *, first_s: float = 0.1, rng: Callable[[], float] = random.random) -> Iterator[float]:
    """Pauses in seconds: uniform between 0 and a limit that doubles from ``first_s`` to ``cap_s`` (full jitter)."""
    limit = min(first_s, cap_s)
    while True:
        yield limit * rng()
        limit = min(2 * limit, cap_s)


async def _until_signal(name: str, main: Callable[[], Awaitable[None]]) -> None:
    """The first signal cancels ``main``; everything below winds down by leaving its scopes."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    task.set_name(name)
    told = False

    def stop() -> None:
        nonlocal told
        if not told:
            task.cancel()
        told = True

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    try:
        await main()
    except asyncio.CancelledError:
        if not told:
            raise


def _exit_code(log: logging.Logger, error: BaseException) -> int:
    problems = [problem for each in _leaves(error) if isinstance(each, ConfigError) for problem in each.problems]
    crashes = [each for each in _leaves(error) if not isinstance(each, ConfigError)]
    for problem in problems:
        sys.stderr.write(f"{problem}\n")
    for crash in crashes:
        log.critical("crashed: %s: %s", type(crash).__name__, crash, exc_info=crash)
    return EXIT_CRASH if crashes else EXIT_CONFIG


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _leaves(each)
    else:
        yield error


def _holds(error: BaseException, kinds: tuple[type[BaseException], ...]) -> bool:
    return any(isinstance(each, kinds) for each in _leaves(error))
