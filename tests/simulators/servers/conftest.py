"""A plant that takes writes, and a server's life around a test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress

import pytest

from simulators.servers.base import Server
from wire.errors import Rejected

Serving = Callable[[Server], AbstractAsyncContextManager[None]]


class Plant:
    """Takes writes between 0 and 10."""

    def __init__(self) -> None:
        self.told: list[tuple[str, float]] = []

    def obey(self, point: str, value: float) -> None:
        if not 0.0 <= value <= 10.0:
            raise Rejected("range", f"{value}")
        self.told.append((point, value))


@pytest.fixture
def plant() -> Plant:
    return Plant()


@asynccontextmanager
async def _serving(server: Server) -> AsyncIterator[None]:
    task = asyncio.create_task(server.serve(), name="serve")
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@pytest.fixture
def serving() -> Serving:
    return _serving
