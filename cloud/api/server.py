"""Serving the API from inside the process's own event loop, until cancelled."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from contextlib import suppress

import uvicorn
from starlette.types import ASGIApp

from wire.errors import ConfigError

DRAIN_S = 1
"""How long requests under way may take to finish when the server stops."""


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: the process has its own."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(app: ASGIApp, host: str, port: int) -> None:
    """Serve until cancelled, then close the listener and finish what is under way.

    Raises ConfigError if the address cannot be bound.
    """
    listener = _listen(host, port)
    config = uvicorn.Config(
        app,
        lifespan="off",
        access_log=False,
        log_config=None,
        log_level="warning",
        timeout_graceful_shutdown=DRAIN_S,
        ws="none",
    )
    server = _Server(config)
    async with asyncio.TaskGroup() as tasks:
        serving = tasks.create_task(server.serve([listener]), name="api/serve")
        try:
            await asyncio.shield(serving)
        except asyncio.CancelledError:
            server.should_exit = True
            while not serving.done():
                with suppress(asyncio.CancelledError):
                    await asyncio.wait([serving])
            raise


def _listen(host: str, port: int) -> socket.socket:
    """A bound socket; the address is tried before anything else runs on it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise ConfigError.at("api", f"cannot listen on {host}:{port}: {error.strerror}") from None
    return listener
