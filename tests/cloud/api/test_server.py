"""The API's server inside our own event loop: real sockets, clean end."""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from collections.abc import Awaitable, Callable

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from cloud.api.server import serve
from wire.errors import ConfigError

Eventually = Callable[..., Awaitable[None]]


async def slow(request: Request) -> PlainTextResponse:
    await asyncio.sleep(float(request.query_params.get("s", "0")))
    return PlainTextResponse("here")


APP = Starlette(routes=[Route("/", slow)])


async def answers(url: str) -> bool:
    async with httpx.AsyncClient(trust_env=False) as client:
        try:
            return (await client.get(url)).text == "here"
        except httpx.TransportError:
            return False


async def test_it_serves_until_cancelled_and_gives_the_port_back(
    free_port: Callable[[], int], eventually: Eventually
) -> None:
    port = free_port()
    before = signal.getsignal(signal.SIGTERM)
    for _ in range(2):
        serving = asyncio.create_task(serve(APP, "127.0.0.1", port))
        await eventually(lambda: answers(f"http://127.0.0.1:{port}/"))
        assert signal.getsignal(signal.SIGTERM) is before
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving
        assert not await answers(f"http://127.0.0.1:{port}/")


async def test_a_request_under_way_does_not_hold_the_end_up_for_long(
    free_port: Callable[[], int], eventually: Eventually
) -> None:
    port = free_port()
    serving = asyncio.create_task(serve(APP, "127.0.0.1", port))
    await eventually(lambda: answers(f"http://127.0.0.1:{port}/"))
    under_way = asyncio.create_task(answers(f"http://127.0.0.1:{port}/?s=30"))
    await asyncio.sleep(0.2)
    began = time.monotonic()
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
    assert time.monotonic() - began < 2.5
    under_way.cancel()
    await asyncio.gather(under_way, return_exceptions=True)


async def test_a_taken_port_is_a_configuration_error() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ConfigError, match="cannot listen"):
            await serve(APP, "127.0.0.1", taken.getsockname()[1])
