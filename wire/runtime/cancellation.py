"""A cancellation that a library forgets."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def remembered() -> Iterator[None]:
    """A cancellation that came meanwhile is raised at the end, whatever the calls within returned or raised.

    ``asyncio.wait_for`` of Python 3.11, which aiomqtt, pymodbus and asyncua use inside, drops a cancellation that
    arrives together with the answer; a loop around such a call would then run for ever.
    """
    task = asyncio.current_task()
    assert task is not None
    before = task.cancelling()
    try:
        yield
    finally:
        if task.cancelling() > before:
            raise asyncio.CancelledError
