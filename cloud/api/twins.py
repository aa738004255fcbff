"""Routes about types and twins: apply, list, show, now, history, next."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from cloud.api import render
from cloud.api.body import receive, reply
from cloud.api.ports import Ints, LiveView
from cloud.api.schema import ApplyReply, ApplyRequest, ChangeReply, HistoryReply, NextReply, TwinsReply
from cloud.api.times import NS, moment, span
from cloud.history.base import History
from cloud.provision.plan import SourceText
from cloud.provision.registry import Registry
from cloud.twins.model import Twin
from wire.errors import Rejected

MAX_APPLY_BYTES = 4 << 20
MAX_HISTORY_NS = 7 * 86_400 * NS
MAX_FORECAST_NS = 7 * 86_400 * NS
FORECAST_POINTS = 120


class TwinRoutes:
    """Handlers over the registry, the worker and the history."""

    def __init__(self, registry: Registry, live: LiveView, history: History, now: Callable[[], int]) -> None:
        self._registry = registry
        self._live = live
        self._history = history
        self._now = now

    @property
    def routes(self) -> list[Route]:
        return [
            Route("/v1/apply", self.apply, methods=["POST"]),
            Route("/v1/twins", self.list, methods=["GET"]),
            Route("/v1/twins/{twin}", self.show, methods=["GET"]),
            Route("/v1/twins/{twin}/now", self.now, methods=["GET"]),
            Route("/v1/twins/{twin}/history", self.history, methods=["GET"]),
            Route("/v1/twins/{twin}/next", self.next, methods=["GET"]),
        ]

    async def apply(self, request: Request) -> Response:
        asked = await receive(request, ApplyRequest, MAX_APPLY_BYTES)
        changes = await self._registry.apply([SourceText(file.file, file.text) for file in asked.files])
        made = [
            ChangeReply(kind=item.kind, name=item.name, action=item.action, revision=item.revision) for item in changes
        ]
        return reply(ApplyReply(changes=made))

    async def list(self, request: Request) -> Response:
        twins = self._registry.twins()
        beliefs = self._live.beliefs(list(twins), self._now())
        return reply(TwinsReply(twins=[render.twin_line(twins[name], beliefs.get(name)) for name in sorted(twins)]))

    async def show(self, request: Request) -> Response:
        return reply(render.twin_reply(self._twin(request)))

    async def now(self, request: Request) -> Response:
        twin = self._twin(request)
        belief = self._live.beliefs([twin.name], self._now()).get(twin.name)
        if belief is None:
            raise Rejected("no-estimate", f"{twin.name} has received no reading yet")
        return reply(render.now_reply(twin, belief))

    async def history(self, request: Request) -> Response:
        twin, now = self._twin(request), self._now()
        start = moment(request.query_params.get("from", "10m"), now)
        end = moment(request.query_params.get("to", "now"), now)
        if not 0 < end - start <= MAX_HISTORY_NS:
            raise Rejected("time-range", "from must lie before to, by at most 7 d")
        rows = await self._history.estimates(twin.name, start, end)
        traces = {}
        if request.query_params.get("readings") != "no":
            for name, unit in render.units_of(twin).items():
                point = twin.channels.get(name)
                if point is not None:
                    traces[name] = render.trace(unit, point, await self._history.readings(point, start, end))
        body = HistoryReply(
            twin=twin.name,
            start=start,
            end=end,
            time=rows.time.tolist(),
            revision=rows.revision.tolist(),
            states=render.bands(twin, rows.states, rows.mean, rows.sigma),
            readings=traces,
        )
        return reply(body)

    async def next(self, request: Request) -> Response:
        twin, at = self._twin(request), self._now()
        ahead = span(request.query_params.get("for", "10m"))
        if not 0 < ahead <= MAX_FORECAST_NS:
            raise Rejected("time-range", "a forecast reaches ahead, by at most 7 d")
        times = at + _steps(ahead, twin.type.tick_ns)
        mean, sigma = self._live.forecast(twin.name, times)
        names = [state.name for state in twin.type.states]
        return reply(
            NextReply(twin=twin.name, at=at, time=times.tolist(), states=render.bands(twin, names, mean, sigma))
        )

    def _twin(self, request: Request) -> Twin:
        name = request.path_params["twin"]
        twin = self._registry.twin(name)
        if twin is None:
            raise Rejected("unknown-twin", f"no twin {name!r}")
        return twin


def _steps(ahead: int, tick: int) -> Ints:
    """Offsets from 0 to ``ahead``: as fine as the tick, but at most FORECAST_POINTS of them."""
    count = int(min(max(ahead // max(tick, 1), 1), FORECAST_POINTS))
    return (np.arange(count + 1, dtype=np.int64) * (ahead // count)).astype(np.int64)
