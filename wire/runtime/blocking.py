"""Blocking library calls that must not be abandoned half-way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def finish(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run ``call`` in a thread and wait for its end, also when cancelled meanwhile; only then is the cancellation
    passed on. ``asyncio.to_thread`` would leave the thread running on a connection that its owner then closes.
    """
    future = asyncio.get_running_loop().run_in_executor(None, partial(call, *args, **kwargs))
    cancelled: asyncio.CancelledError | None = None
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        future.exception()
        raise cancelled
    return future.result()
