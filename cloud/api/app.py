"""The HTTP API as a Starlette application: a token on every route, errors sorted by remedy."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from dataclasses import dataclass

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from cloud.api.ports import LiveView
from cloud.api.setpoints import SetpointRoutes
from cloud.api.stats import StatsRoutes
from cloud.api.twins import TwinRoutes
from cloud.commands.service import Commands
from cloud.history.base import History
from cloud.provision.registry import Registry
from wire.errors import BadData, ConfigError, Rejected, TwinlineError, Unavailable

STATUS_OF_REASON = {"conflict": 409, "no-estimate": 409, "busy": 429, "oversize": 413}
"""Reasons with a status of their own; ``unknown-...`` is 404, every other refusal 422, bad data 400."""


@dataclass(frozen=True)
class Cloud:
    """Everything the API speaks for."""

    registry: Registry
    live: LiveView
    history: History
    commands: Commands
    now: Callable[[], int]


def create_app(cloud: Cloud, token: str) -> Starlette:
    """The application; every request must carry ``token``."""
    routes = [
        *TwinRoutes(cloud.registry, cloud.live, cloud.history, cloud.now).routes,
        *SetpointRoutes(cloud.commands).routes,
        *StatsRoutes(cloud.registry, cloud.live, cloud.commands, cloud.now).routes,
    ]
    return Starlette(
        routes=routes,
        middleware=[Middleware(BearerToken, token=token)],
        exception_handlers={TwinlineError: _explain, HTTPException: _no_such_route, Exception: _explain},
    )


class BearerToken:
    """Lets only requests with the right token through; the comparison takes the same time for any wrong one."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._expected = b"Bearer " + token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not self._carries_token(scope):
            refused = JSONResponse(
                {"error": "unauthorised", "detail": "a bearer token is needed"}, 401, {"WWW-Authenticate": "Bearer"}
            )
            await refused(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _carries_token(self, scope: Scope) -> bool:
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        return len(given) == 1 and hmac.compare_digest(given[0], self._expected)


async def _no_such_route(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 404
    return JSONResponse({"error": "no-such-route", "detail": f"{request.method} {request.url.path}"}, status)


async def _explain(request: Request, error: Exception) -> Response:
    """The error as status and body, by what the asker should do."""
    match error:
        case ConfigError():
            problems = [problem._asdict() for problem in error.problems]
            return JSONResponse({"error": "config", "detail": str(error), "problems": problems}, 422)
        case Unavailable():
            return JSONResponse({"error": "unavailable", "detail": str(error)}, 503, {"Retry-After": "1"})
        case Rejected() | BadData():
            usual = 404 if error.reason.startswith("unknown-") else 422 if isinstance(error, Rejected) else 400
            status = STATUS_OF_REASON.get(error.reason, usual)
            return JSONResponse({"error": error.reason, "detail": error.detail}, status)
        case _:
            return JSONResponse({"error": "internal", "detail": type(error).__name__}, 500)
