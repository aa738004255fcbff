"""A deadline around a protocol library's call that no cancellation can fall through."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from wire.runtime.cancellation import remembered


@asynccontextmanager
async def deadline(seconds: float) -> AsyncIterator[None]:
    """Like ``asyncio.timeout``, and a cancellation that came during the call is raised whatever the call returned."""
    async with asyncio.timeout(seconds):
        with remembered():
            yield
