"""History in InfluxDB 1.8, 2.x or 3.x: the v2 write API through ``influxdb-client``, InfluxQL reads on ``/query``.

Writing a point again replaces it, which is what makes ``append`` idempotent here. A server that does not replace
(VictoriaMetrics) can be written to, but holds repeats after a crash. The revision of an estimate is stored, not
compared: the last writer wins. ``cloud.history.lines`` has the schema.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Self

import httpx
from influxdb_client.client.influxdb_client import InfluxDBClient
from influxdb_client.client.write_api import SYNCHRONOUS, WriteApi
from influxdb_client.rest import ApiException
from urllib3.exceptions import HTTPError

from cloud.history.base import Batch, EstimateRows, Event, Readings
from cloud.history.config import InfluxConfig
from cloud.history.lines import (
    Row,
    ask_estimates,
    ask_events,
    ask_readings,
    encode,
    read_estimates,
    read_events,
    read_readings,
)
from cloud.history.rows import assemble, check
from wire.errors import BadData, ConfigError, Unavailable
from wire.points import PointId

LINES_PER_WRITE = 5_000
REFUSED = frozenset({400, 413, 422})
"""Answers that will not change by asking again. A wrong token is not among them: somebody can mend it, and until
then nothing may be thrown away."""


def open_store(config: InfluxConfig, state: Path) -> InfluxHistory:
    """The store that the config describes; ``state`` is not used."""
    return InfluxHistory(config)


class InfluxHistory:
    """One client for writing, one for reading; both are opened on entry."""

    def __init__(self, config: InfluxConfig) -> None:
        self._config = config
        self._opened = AsyncExitStack()
        self._writer: WriteApi | None = None
        self._reader: httpx.AsyncClient | None = None

    async def __aenter__(self) -> Self:
        token = await asyncio.to_thread(_token, self._config)
        async with AsyncExitStack() as opening:
            milliseconds = round(self._config.timeout * 1000)
            client = opening.enter_context(
                InfluxDBClient(self._config.url, token, org=self._config.org, timeout=milliseconds, retries=False)
            )
            self._writer = opening.enter_context(client.write_api(write_options=SYNCHRONOUS))
            headers = {"Authorization": f"Token {token}"} if token else {}
            self._reader = await opening.enter_async_context(
                httpx.AsyncClient(base_url=self._config.url, headers=headers, timeout=self._config.timeout)
            )
            self._opened = opening.pop_all()
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._writer = self._reader = None
        await self._opened.aclose()

    async def append(self, batch: Batch) -> None:
        for chunk in batch.chunks:
            check(chunk)
        lines = list(encode(batch))
        for first in range(0, len(lines), LINES_PER_WRITE):
            await asyncio.to_thread(self._write, "\n".join(lines[first : first + LINES_PER_WRITE]))

    async def readings(self, point: PointId, start: int, end: int) -> Readings:
        return read_readings(await self._ask(ask_readings(point, start, end)))

    async def estimates(self, twin: str, start: int, end: int) -> EstimateRows:
        return assemble(twin, *read_estimates(await self._ask(ask_estimates(twin, start, end))))

    async def events(self, subject: str, start: int, end: int) -> list[Event]:
        return read_events(subject, await self._ask(ask_events(subject, start, end)))

    def _write(self, lines: str) -> None:
        if self._writer is None:
            raise Unavailable("the history is closed")
        try:
            self._writer.write(self._config.bucket, self._config.org, lines)
        except ApiException as error:
            raise _translated(error.status or 0, f"{error.reason}: {error.body}") from error
        except (HTTPError, OSError) as error:
            raise Unavailable(f"{self._config.url}: {error}") from error

    async def _ask(self, query: str) -> list[Row]:
        if self._reader is None:
            raise Unavailable("the history is closed")
        parameters = {"db": self._config.bucket.partition("/")[0], "q": query, "epoch": "ns"}
        try:
            answer = await self._reader.get("/query", params=parameters)
        except httpx.HTTPError as error:
            raise Unavailable(f"{self._config.url}: {error!r}") from error
        if answer.status_code != httpx.codes.OK:
            raise _translated(answer.status_code, answer.text)
        return _rows(answer.content)


def _token(config: InfluxConfig) -> str:
    if config.token_file is None:
        return ""
    try:
        return Path(config.token_file).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigError.at(config.token_file, f"the token cannot be read: {error.strerror}") from error


def _translated(status: int, text: str) -> Unavailable | BadData:
    detail = f"InfluxDB answered {status}: {text.strip()[:300]}"
    return BadData("refused", detail) if status in REFUSED else Unavailable(detail)


def _rows(content: bytes) -> list[Row]:
    """Rows of an InfluxQL answer, each with its series' tags."""
    try:
        results = json.loads(content, parse_int=_whole)["results"]
        if any("error" in result for result in results):
            raise BadData("query", str(results))
        return [
            dict(zip(series["columns"], values, strict=True)) | series.get("tags", {})
            for result in results
            for series in result.get("series", [])
            for values in series["values"]
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise Unavailable(f"InfluxDB sent no answer that can be read: {error!r}") from error


def _whole(text: str) -> int | float:
    # InfluxDB writes a float without a fraction as a whole number, and minus zero would lose its sign as one
    return -0.0 if text == "-0" else int(text)
