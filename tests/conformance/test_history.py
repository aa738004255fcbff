"""What every history store promises, on memory, SQLite and InfluxDB alike."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import numpy as np
import pytest

from cloud.history.base import Batch, EstimateRows, Event, History, RawChunk
from cloud.history.config import InfluxConfig, MemoryConfig, SqliteConfig
from cloud.history.influx import InfluxHistory
from cloud.history.sqlite import SqliteHistory
from cloud.sqlite import Database
from tests.history_servers import ask, influxdb, running
from wire.errors import BadData, ConfigError, Unavailable
from wire.points import PointId
from wire.quality import Quality
from wire.runtime import plugins

START = 1_700_000_000_000_000_000
SECOND = 1_000_000_000
H1 = PointId("demo", "edge-tank", "tank", "h1")
H2 = PointId("demo", "edge-tank", "tank", "h2")
EVER = (0, (1 << 63) - 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("history")


@pytest.fixture(scope="module")
def influx_port(folder: Path) -> Iterator[int]:
    with influxdb(folder) as port:
        yield port


@pytest.fixture(params=["memory", "sqlite", "influx"])
def opening(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Any]:
    """Opens a store: the same one each time, empty at the beginning of the test."""
    if request.param == "memory":
        config: Any = MemoryConfig(kind="memory")
        kept = plugins.load("cloud.history", "memory").open_store(config, tmp_path)
        return lambda: kept
    if request.param == "sqlite":
        config = SqliteConfig(kind="sqlite")
    else:
        port = request.getfixturevalue("influx_port")
        bucket = f"t{uuid4().hex}"
        ask(port, "POST", f"/query?q={quote(f'CREATE DATABASE {bucket}')}")
        config = InfluxConfig(kind="influx", url=f"http://127.0.0.1:{port}", bucket=bucket)
    return lambda: plugins.load("cloud.history", config.kind).open_store(config, tmp_path)


def chunk(
    seq: int,
    rows: Sequence[tuple[int, int, int, float, int]],
    points: Sequence[PointId] = (H1, H2),
    side: dict[int, int | str] | None = None,
) -> RawChunk:
    """A chunk from rows (point, seconds after START, ordinal, value, quality)."""
    return RawChunk(
        source=points[0].source,
        epoch=7,
        seq=seq,
        points=points,
        point=np.array([row[0] for row in rows], dtype=np.int64),
        time=np.array([START + row[1] * SECOND for row in rows], dtype=np.int64),
        ordinal=np.array([row[2] for row in rows], dtype=np.int64),
        value=np.array([row[3] for row in rows], dtype=np.float64),
        quality=np.array([row[4] for row in rows], dtype=np.uint8),
        side=side or {},
    )


def estimates(
    times: Sequence[int],
    means: Sequence[Sequence[float]],
    revision: int = 0,
    type_hash: str = "9f2c",
    twin: str = "tank-1",
) -> EstimateRows:
    mean = np.array(means, dtype=np.float64)
    return EstimateRows(
        type_hash=type_hash,
        states=("h2", "h1")[: mean.shape[1]],
        twin=[twin] * len(times),
        time=np.array([START + time * SECOND for time in times], dtype=np.int64),
        mean=mean,
        sigma=mean / 100,
        revision=np.full(len(times), revision, dtype=np.int64),
    )


async def test_readings_come_back_bit_for_bit_in_time_order(opening: Any) -> None:
    odd = [0.1, -0.0, 1e-308, 1.7976931348623157e308, 1 / 3, 12.0, 123456789.123456789]
    rows = [(0, second, 0, value, Quality.GOOD) for second, value in enumerate(odd)]
    async with opening() as history:
        await history.append(Batch(chunks=[chunk(2, rows[4:]), chunk(1, rows[:4])]))
        found = await history.readings(H1, *EVER)
    assert found.time.tolist() == [START + second * SECOND for second in range(7)]
    assert found.value.tobytes() == np.array(odd).tobytes()
    assert (found.value.dtype, found.time.dtype, found.ordinal.dtype) == (np.float64, np.int64, np.int64)
    assert found.quality.dtype == np.uint8


async def test_a_range_holds_its_start_and_not_its_end(opening: Any) -> None:
    async with opening() as history:
        await history.append(Batch(chunks=[chunk(0, [(0, second, 0, float(second), 0) for second in range(10)])]))
        found = await history.readings(H1, START + 3 * SECOND, START + 6 * SECOND)
        at_border = await history.readings(H1, START + 9 * SECOND, START + 10 * SECOND)
    assert found.value.tolist() == [3.0, 4.0, 5.0]
    assert at_border.value.tolist() == [9.0]


async def test_nothing_stored_is_an_empty_answer(opening: Any) -> None:
    async with opening() as history:
        assert len((await history.readings(H1, *EVER)).time) == 0
        nothing = await history.estimates("tank-1", *EVER)
        assert (nothing.twin, nothing.states, nothing.mean.shape) == ([], (), (0, 0))
        assert await history.events("tank-1", *EVER) == []


async def test_points_are_told_apart_also_between_schemas(opening: Any) -> None:
    other = PointId("demo", "edge-zone", "zone", "h1")
    async with opening() as history:
        await history.append(
            Batch(
                chunks=[
                    chunk(0, [(0, 0, 0, 1.0, 0), (1, 0, 0, 2.0, 0)]),
                    chunk(1, [(0, 1, 0, 3.0, 0), (1, 1, 0, 4.0, 0)], points=(H2, H1)),
                    chunk(0, [(0, 0, 0, 5.0, 0)], points=(other,)),
                ]
            )
        )
        assert (await history.readings(H1, *EVER)).value.tolist() == [1.0, 4.0]
        assert (await history.readings(H2, *EVER)).value.tolist() == [2.0, 3.0]
        assert (await history.readings(other, *EVER)).value.tolist() == [5.0]


async def test_equal_stamps_are_kept_apart_by_ordinal(opening: Any) -> None:
    async with opening() as history:
        await history.append(Batch(chunks=[chunk(0, [(0, 0, 1, 2.0, 0), (0, 0, 0, 1.0, 0)])]))
        found = await history.readings(H1, *EVER)
    assert (found.ordinal.tolist(), found.value.tolist()) == ([0, 1], [1.0, 2.0])


async def test_a_bad_reading_has_a_reason_instead_of_a_value(opening: Any) -> None:
    rows = [(0, 0, 0, np.nan, Quality.BAD_TIMEOUT), (0, 1, 0, 2.0, Quality.UNCERTAIN_CLOCK)]
    async with opening() as history:
        await history.append(Batch(chunks=[chunk(0, rows)]))
        found = await history.readings(H1, *EVER)
    assert np.isnan(found.value).tolist() == [True, False]
    assert found.quality.tolist() == [Quality.BAD_TIMEOUT, Quality.UNCERTAIN_CLOCK]


async def test_text_and_huge_integers_are_stored_without_a_number(opening: Any) -> None:
    rows = [(0, 0, 0, np.nan, 0), (0, 1, 0, np.nan, 0)]
    side: dict[int, int | str] = {0: 'say "ah", \\ or\nnothing', 1: (1 << 60) + 1}
    async with opening() as history:
        await history.append(Batch(chunks=[chunk(0, rows, side=side)]))
        found = await history.readings(H1, *EVER)
    assert np.isnan(found.value).all()
    assert found.quality.tolist() == [0, 0]


async def test_the_same_chunk_again_changes_nothing(opening: Any) -> None:
    batch = Batch(chunks=[chunk(0, [(0, 0, 0, 1.0, 0), (1, 0, 0, 2.0, 0)]), chunk(1, [(0, 1, 0, 3.0, 0)])])
    async with opening() as history:
        await history.append(batch)
        await history.append(batch)
        assert (await history.readings(H1, *EVER)).value.tolist() == [1.0, 3.0]


async def test_of_two_readings_with_one_name_the_last_written_counts(opening: Any) -> None:
    async with opening() as history:
        await history.append(Batch(chunks=[chunk(0, [(0, 0, 0, 1.0, 0), (0, 1, 0, 9.0, 0)])]))
        await history.append(Batch(chunks=[chunk(1, [(0, 0, 0, 5.0, 0), (0, 1, 0, np.nan, Quality.BAD)])]))
        found = await history.readings(H1, *EVER)
    assert found.time.tolist() == [START, START + SECOND]
    assert found.value[0] == 5.0
    assert np.isnan(found.value[1])


async def test_what_was_appended_is_there_after_reopening(opening: Any) -> None:
    event = Event("tank-1/1", START, "reset", "tank-1", "filter widened")
    async with opening() as history:
        await history.append(Batch([chunk(0, [(0, 0, 0, 1.0, 0)])], [estimates([0], [[1.0, 2.0]])], [event]))
    async with opening() as history:
        assert (await history.readings(H1, *EVER)).value.tolist() == [1.0]
        assert (await history.estimates("tank-1", *EVER)).mean.tolist() == [[1.0, 2.0]]
        assert await history.events("tank-1", *EVER) == [event]


async def test_estimates_come_back_bit_for_bit_with_their_type_and_order_of_states(opening: Any) -> None:
    given = estimates([2, 0, 1], [[0.1, 1 / 3], [1e-30, -2.5], [3.0, 1e9]], revision=4)
    async with opening() as history:
        await history.append(Batch(estimates=[given, estimates([0], [[7.0, 7.0]], twin="tank-2")]))
        found = await history.estimates("tank-1", *EVER)
        assert (await history.estimates("tank-1", START + SECOND, START + 2 * SECOND)).mean.tolist() == [[3.0, 1e9]]
    order = [1, 2, 0]
    assert (found.type_hash, found.states, found.twin) == ("9f2c", ("h2", "h1"), ["tank-1"] * 3)
    assert found.time.tolist() == given.time[order].tolist()
    assert found.mean.tobytes() == given.mean[order].tobytes()
    assert found.sigma.tobytes() == given.sigma[order].tobytes()
    assert found.revision.tolist() == [4, 4, 4]


async def test_late_data_rewrites_an_estimate(opening: Any) -> None:
    async with opening() as history:
        await history.append(Batch(estimates=[estimates([0, 1], [[1.0, 1.0], [2.0, 2.0]], revision=3)]))
        await history.append(Batch(estimates=[estimates([1], [[5.0, 5.0]], revision=4)]))
        found = await history.estimates("tank-1", *EVER)
    assert found.mean.tolist() == [[1.0, 1.0], [5.0, 5.0]]
    assert found.revision.tolist() == [3, 4]


@pytest.mark.parametrize("opening", ["memory", "sqlite"], indirect=True)
async def test_an_older_revision_rewrites_nothing(opening: Any) -> None:
    """An owner that has been replaced may still append once. InfluxDB compares nothing: there the last writer wins."""
    async with opening() as history:
        await history.append(Batch(estimates=[estimates([1], [[5.0, 5.0]], revision=4)]))
        await history.append(Batch(estimates=[estimates([1], [[2.0, 2.0]], revision=3)]))
        assert (await history.estimates("tank-1", *EVER)).mean.tolist() == [[5.0, 5.0]]


async def test_after_a_change_of_type_only_the_new_types_rows_are_comparable(opening: Any) -> None:
    async with opening() as history:
        await history.append(Batch(estimates=[estimates([0, 1], [[1.0, 1.0], [2.0, 2.0]], revision=30)]))
        await history.append(Batch(estimates=[estimates([1, 2], [[5.0], [6.0]], revision=1, type_hash="abcd")]))
        found = await history.estimates("tank-1", *EVER)
    assert (found.type_hash, found.states) == ("abcd", ("h2",))
    assert found.mean.tolist() == [[5.0], [6.0]]


async def test_events_are_kept_once_by_id_in_time_order(opening: Any) -> None:
    subject = "demo/edge-tank/tank/pump1-set"
    events = [
        Event("c2/3", START + SECOND, "verified", subject, 'read back 3.0 V, "as asked"'),
        Event("c1/1", START, "sent", subject, ""),
        Event("c1/2", START, "sent", subject, "again, at the same instant"),
    ]
    async with opening() as history:
        await history.append(Batch(events=events))
        await history.append(Batch(events=events[:1]))
        assert await history.events(subject, *EVER) == [events[1], events[2], events[0]]
        assert await history.events(subject, START, START + SECOND) == [events[1], events[2]]
        assert await history.events("tank-1", *EVER) == []


async def test_columns_that_disagree_are_refused_whole(opening: Any) -> None:
    good, bad = chunk(0, [(0, 0, 0, 1.0, 0)]), chunk(1, [(2, 1, 0, 2.0, 0)])
    async with opening() as history:
        with pytest.raises(BadData):
            await history.append(Batch(chunks=[good, bad]))
        assert len((await history.readings(H1, *EVER)).time) == 0


@pytest.mark.parametrize("opening", ["sqlite", "influx"], indirect=True)
async def test_a_store_that_is_not_open_is_unavailable(opening: Any) -> None:
    with pytest.raises(Unavailable):
        await opening().append(Batch(events=[Event("1", START, "note", "tank-1", "")]))


async def test_thousands_of_readings_in_one_batch(opening: Any) -> None:
    chunks = [chunk(seq, [(row % 2, seq, row, float(row), 0) for row in range(100)]) for seq in range(60)]
    async with opening() as history:
        await history.append(Batch(chunks=chunks))
        found = await history.readings(H2, *EVER)
    assert len(found.time) == 3000
    assert found.ordinal[:3].tolist() == [1, 3, 5]


# What only one store can show.


async def test_sqlite_survives_a_power_cut_by_syncing_every_commit(tmp_path: Path) -> None:
    async with Database(tmp_path / "any.db") as database:
        settings = [(await database.read(partial(pragma, name=name))) for name in ("journal_mode", "synchronous")]
    assert settings == ["wal", 2]


def pragma(connection: sqlite3.Connection, name: str) -> Any:
    return connection.execute(f"PRAGMA {name}").fetchone()[0]


async def test_sqlite_waits_out_a_cancelled_append(tmp_path: Path) -> None:
    batch = Batch(chunks=[chunk(seq, [(0, seq, 0, 1.0, 0)]) for seq in range(2000)])
    async with SqliteHistory(tmp_path / "history.db") as history:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.002):
                await history.append(batch)
        assert len((await history.readings(H1, *EVER)).time) in (0, 2000), "a part of a batch was committed"


async def test_sqlite_names_a_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    path.write_bytes(b"once upon a time " * 100)
    with pytest.raises(ConfigError, match=r"history\.db.*not a usable database"):
        async with SqliteHistory(path):
            pass


@asynccontextmanager
async def answering(status: int, body: bytes = b"{}") -> AsyncIterator[History]:
    """An InfluxHistory whose server gives the same answer to everything."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = answer  # noqa: N815

        def log_message(self, *args: object) -> None:
            """Silence."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    config = InfluxConfig(kind="influx", url=f"http://127.0.0.1:{server.server_address[1]}", bucket="b")
    async with AsyncExitStack() as leaving:
        leaving.callback(thread.join)
        leaving.callback(server.server_close)
        leaving.callback(server.shutdown)
        yield await leaving.enter_async_context(InfluxHistory(config))


@pytest.mark.parametrize(
    ("status", "remedy"),
    [*((status, Unavailable) for status in (500, 503, 429, 401, 404)), *((status, BadData) for status in (400, 422))],
)
async def test_influx_errors_are_sorted_by_remedy(status: int, remedy: type[Exception]) -> None:
    async with answering(status) as history:
        with pytest.raises(remedy):
            await history.append(Batch(events=[Event("1", START, "note", "tank-1", "")]))
        with pytest.raises(remedy):
            await history.readings(H1, *EVER)


async def test_influx_answers_that_make_no_sense_are_unavailable() -> None:
    async with answering(200, b"<html>") as history:
        with pytest.raises(Unavailable):
            await history.readings(H1, *EVER)


async def test_influx_that_is_away_is_unavailable(free_port: Callable[[], int]) -> None:
    config = InfluxConfig(kind="influx", url=f"http://127.0.0.1:{free_port()}", bucket="b")
    async with InfluxHistory(config) as history:
        with pytest.raises(Unavailable):
            await history.append(Batch(events=[Event("1", START, "note", "tank-1", "")]))
        with pytest.raises(Unavailable):
            await history.events("tank-1", *EVER)


async def test_influx_refuses_what_its_tags_cannot_hold() -> None:
    async with answering(204, b"") as history:
        with pytest.raises(BadData):
            await history.append(Batch(events=[Event("1", START, "note", "tank\n-1", "")]))
        with pytest.raises(BadData):
            await history.append(Batch(estimates=[clashing()]))


def clashing() -> EstimateRows:
    rows = estimates([0], [[1.0, 2.0]])
    return EstimateRows(rows.type_hash, ("h1", "h1_sigma"), rows.twin, rows.time, rows.mean, rows.sigma, rows.revision)


async def test_the_v2_write_api_is_proved_against_victoriametrics(
    tmp_path: Path, server_program: Callable[[str], str], free_port: Callable[[], int], eventually: Any
) -> None:
    """Write-only: this server keeps every write of a point, so it is outside the exactly-once claim."""
    port = free_port()
    arguments = [f"-httpListenAddr=127.0.0.1:{port}", f"-storageDataPath={tmp_path}/vm", "-retentionPeriod=100y"]
    config = InfluxConfig(kind="influx", url=f"http://127.0.0.1:{port}", bucket="twinline")
    with running(server_program("victoria-metrics"), arguments, port):
        async with InfluxHistory(config) as history:
            await history.append(
                Batch([chunk(0, [(0, 0, 0, 12.5, 0), (1, 0, 0, np.nan, 129)])], [estimates([0], [[1.0, 2.0]])])
            )
        await asyncio.to_thread(ask, port, "GET", "/internal/force_flush")
        names = ["reading_value", "reading_quality", "estimate_h1", "estimate_h1_sigma"]
        for name in names:
            stored = await asyncio.to_thread(ask, port, "GET", f"/api/v1/export?match[]={name}")
            assert stored, f"{name} is not in the store"
        value = await asyncio.to_thread(ask, port, "GET", "/api/v1/export?match[]=reading_value")
        assert b'"values":[12.5]' in value
        assert b'"timestamps":[1700000000000]' in value
