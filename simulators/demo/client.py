"""The demo as a client of the cloud: the same HTTP API that every other program uses."""

from __future__ import annotations

from types import TracebackType
from typing import Self, TypeVar

import httpx
from pydantic import ValidationError

from simulators.demo.replies import Command, History, Now, Reply, Stats
from wire.errors import Rejected, Unavailable

R = TypeVar("R", bound=Reply)


class Client:
    """One connection to one cloud. Call order: enter, ask, leave.

    Every verb raises Unavailable while the cloud is away or still starting, and Rejected with its own word for what it
    refuses.
    """

    def __init__(self, url: str, token: str) -> None:
        self._http = httpx.AsyncClient(
            base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=15.0, trust_env=False
        )

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.__aexit__(kind, error, trace)

    async def now(self, twin: str) -> Now:
        """What a twin believes now."""
        return await self._ask(Now, "GET", f"/v1/twins/{twin}/now")

    async def history(self, twin: str, start_ns: int, end_ns: int) -> History:
        """Estimates and readings of [start, end)."""
        return await self._ask(History, "GET", f"/v1/twins/{twin}/history?from={start_ns}&to={end_ns}")

    async def stats(self) -> Stats:
        """What the cloud has counted."""
        return await self._ask(Stats, "GET", "/v1/stats")

    async def order(self, twin: str, actuator: str, value: float, reason: str, key: str) -> Command:
        """Ask for a setpoint; the command returned has only begun. The same ``key`` again is the same command."""
        body: dict[str, object] = {"actuator": actuator, "value": value, "reason": reason, "key": key}
        return await self._ask(Command, "POST", f"/v1/twins/{twin}/setpoints", body)

    async def command(self, command_id: str, after: int) -> Command:
        """A setpoint's story, as soon as it has more than ``after`` steps or some seconds have passed."""
        return await self._ask(Command, "GET", f"/v1/setpoints/{command_id}?wait=5s&after={after}")

    async def _ask(self, kind: type[R], method: str, path: str, body: dict[str, object] | None = None) -> R:
        try:
            reply = await self._http.request(method, path, json=body)
            if reply.status_code >= 500 or reply.status_code == 404:
                raise Unavailable(f"{path}: {reply.status_code}")
            if reply.is_error:
                answer = reply.json()
                raise Rejected(str(answer.get("error", reply.status_code)), str(answer.get("detail", "")))
            return kind.model_validate_json(reply.content)
        except httpx.HTTPError as error:
            raise Unavailable(f"{path}: {type(error).__name__} {error}") from None
        except ValidationError as error:
            raise Unavailable(f"{path}: the answer is not understood: {error}") from None
