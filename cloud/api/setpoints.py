"""Routes about setpoints: ask for one, and follow its story."""

from __future__ import annotations

import re

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from cloud.api import render
from cloud.api.body import receive, reply
from cloud.api.schema import OrderRequest
from cloud.api.times import NS, span
from cloud.commands.model import Order
from cloud.commands.service import Commands
from wire.errors import BadData, Rejected

MAX_ORDER_BYTES = 16 << 10
MAX_WAIT_S = 60.0


class SetpointRoutes:
    """Handlers over the command service."""

    def __init__(self, commands: Commands) -> None:
        self._commands = commands

    @property
    def routes(self) -> list[Route]:
        return [
            Route("/v1/twins/{twin}/setpoints", self.create, methods=["POST"]),
            Route("/v1/setpoints/{id}", self.follow, methods=["GET"]),
        ]

    async def create(self, request: Request) -> Response:
        """202 with the story so far: ``requested``, or ``rejected`` with its reason."""
        asked = await receive(request, OrderRequest, MAX_ORDER_BYTES)
        order = Order(
            twin=request.path_params["twin"],
            actuator=asked.actuator,
            value=asked.value,
            unit=asked.unit,
            reason=asked.reason,
            key=asked.key,
            deadline_s=asked.deadline_s,
        )
        return reply(render.command_reply(await self._commands.request(order)), 202)

    async def follow(self, request: Request) -> Response:
        """The story, at once; with ``wait``, when it is final, has more than ``after`` steps, or the time is up."""
        cmd_id, query = request.path_params["id"], request.query_params
        wait_s = span(query.get("wait", "0 s")) / NS
        if wait_s > MAX_WAIT_S:
            raise Rejected("time-range", f"wait at most {MAX_WAIT_S:g} s")
        after = query.get("after")
        if after is not None and not re.fullmatch(r"[0-9]{1,9}", after):
            raise BadData("malformed", "after: a count of steps")
        entry = await self._commands.wait(cmd_id, wait_s, None if after is None else int(after))
        return reply(render.command_reply(entry))
