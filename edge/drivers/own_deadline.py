"""A deadline around a protocol library's call that no cancellation can fall through."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


@asynccontextmanager
async def deadline(seconds: float) -> AsyncIterator[None]:
    """Like ``asyncio.timeout``, and a cancellation that came during the call is raised whatever the call returned.

    ``asyncio.wait_for`` of Python 3.11, which both libraries use, drops a cancellation that arrives together with the
    answer; the poll loop would then run for ever.
    """
    task = asyncio.current_task()
    assert task is not None
    async with asyncio.timeout(seconds):
        before = task.cancelling()
        try:
            yield
        finally:
            if task.cancelling() > before:
                raise asyncio.CancelledError
