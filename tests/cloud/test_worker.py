"""The worker's promises: stored and fused exactly once whatever is killed, acknowledged only when that is durable."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cloud.bank import Bank, Outcome
from cloud.batch import Batcher
from cloud.checkpoint.base import Checkpoint, Fenced
from cloud.checkpoint.memory import MemoryCheckpoint
from cloud.checkpoint.sqlite import SqliteCheckpoint
from cloud.commands.model import Told
from cloud.figures import Tally
from cloud.fleet import Fleet
from cloud.history.base import Batch, History
from cloud.history.memory import MemoryHistory
from cloud.history.sqlite import SqliteHistory
from cloud.worker import Worker
from tests.cloud.estimation.models import driven, level, linear
from tests.cloud.site import (
    POINTS,
    ROUTE,
    SECOND,
    SOURCE,
    START,
    Shelf,
    Site,
    alive,
    bound,
    point,
    readings,
    schema,
)
from wire.codec import decode, encode_record, join_frame
from wire.delivery import Received
from wire.errors import BadData, Rejected, Unavailable
from wire.messages import GapBody, Record, ResultBody, State
from wire.quality import Quality
from wire.runtime.memory import MemoryBroker, MemoryLink
from wire.units import parse_unit

EVER = (0, (1 << 63) - 1)
Eventually = Callable[..., Any]


class Flaky:
    """A store around a store: fails or stalls on command, before or after having written."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.before: Callable[[], None] = lambda: None
        self.after: Callable[[], None] = lambda: None
        self.gate = asyncio.Event()
        self.gate.set()
        self.calls = 0

    async def claim(self, shards: Sequence[int]) -> Any:
        return await self.inner.claim(shards)

    async def save(self, terms: Mapping[int, int], blobs: Mapping[tuple[int, str], bytes]) -> None:
        await self._around(lambda: self.inner.save(terms, blobs))

    async def append(self, batch: Batch) -> None:
        await self._around(lambda: self.inner.append(batch))

    async def _around(self, write: Callable[[], Any]) -> None:
        self.calls += 1
        self.before()
        await self.gate.wait()
        await write()
        self.after()


def raising(error: Exception, times: int = 1) -> Callable[[], None]:
    left = [error] * times

    def fail() -> None:
        if left:
            raise left.pop()

    return fail


class Cloud:
    """A worker with its surroundings; ``results`` is what the commands were given."""

    def __init__(self, history: Any = None, checkpoint: Any = None, broker: MemoryBroker | None = None) -> None:
        self.broker = broker or MemoryBroker()
        self.history = history or MemoryHistory()
        self.checkpoint = checkpoint or MemoryCheckpoint()
        self.shelf = Shelf()
        self.results: list[Told] = []
        self.refusing: list[Exception] = []
        self.now = lambda: START + 100 * SECOND

    async def on_results(self, results: Sequence[Told]) -> None:
        if self.refusing:
            raise self.refusing.pop()
        self.results += results

    def worker(self) -> tuple[Worker, Bank]:
        bank = Bank()
        worker = Worker(
            MemoryLink(self.broker, "worker"),
            bank,
            self.history,
            self.checkpoint,
            self.shelf,
            on_results=self.on_results,
            now=self.now,
            linger_s=0.01,
        )
        return worker, bank


@asynccontextmanager
async def running(cloud: Cloud, site: Site) -> AsyncIterator[Worker]:
    worker, _ = cloud.worker()
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(worker.run()), tasks.create_task(site.run())]
        yield worker
        for task in running:
            task.cancel()


def story(records: int = 60, seed: int = 1) -> list[Any]:
    """Bodies with everything in them: late, out of order, equal stamps, repeats, bad, ahead, unbound."""
    rng = random.Random(seed)
    bodies: list[Any] = [schema()]
    for number in range(records):
        rows = []
        for _ in range(rng.randrange(1, 8)):
            name = rng.choice(POINTS)
            seconds = round(number * 0.2 + rng.choice([0.0, 0.05, 0.1, -3.0, -7.7]), 3)
            quality = rng.choice([0, 0, 0, 0, Quality.UNCERTAIN_CLOCK, Quality.UNCERTAIN_AHEAD, Quality.BAD_TIMEOUT])
            rows.append((name, max(seconds, 0.0), rng.gauss(0.0, 1.0), int(quality)))
        bodies.append(readings(rows, lag=0.01))
    return bodies


def undisturbed(bodies: Sequence[Any], *twins: Any) -> tuple[Bank, Tally, list[Batch]]:
    """What one batch a record, and nothing else ever happening, would give."""
    bank, tally = Bank(), Tally()
    fleet = Fleet(bank)
    fleet.follow({twin.name: twin for twin in twins})
    batcher = Batcher(bank, fleet, tally)
    batches = []
    for seq, body in enumerate(bodies):
        record = Record(source=SOURCE, stream="telemetry", epoch=1, seq=seq, body=body)
        batches.append(batcher.apply([Received(record)]).batch)
    return bank, tally, batches


async def test_readings_are_stored_fused_counted_and_acknowledged(eventually: Eventually) -> None:
    cloud = Cloud()
    cloud.shelf.put(bound(level(), "a", s0="s0"))
    site = Site(cloud.broker)
    site.add(schema())
    body = readings([("s0", 1, 5.0, 0), ("s1", 1, 7.0, 0), ("s0", 2, 5.2, Quality.BAD_TIMEOUT)], lag=97.5)
    site.add(body.model_copy(update={"filtered": 4}))
    async with running(cloud, site) as worker:
        await eventually(lambda: site.drained)
        figures = worker.live.figures()
        belief = worker.live.beliefs(["a", "nobody"], START + 3 * SECOND)
    assert (await cloud.history.readings(point("s0"), *EVER)).quality.tolist() == [0, Quality.BAD_TIMEOUT]
    assert (await cloud.history.readings(point("s1"), *EVER)).value.tolist() == [7.0]
    assert dict(figures.outcomes) == {"fused": 1, "unbound": 1, "bad": 1, "filtered": 4}
    assert (figures.applied, figures.duplicates) == (3, 0)
    assert figures.latency_p50_ms == pytest.approx(1500, rel=0.05), "from the edge's receive stamp, not the source's"
    assert figures.latency_p99_ms == pytest.approx(1500, rel=0.05)
    assert list(belief) == ["a"]
    assert belief["a"].mean[0] == pytest.approx(5.0, rel=0.02)
    assert belief["a"].measured["s0"].value is None
    assert belief["a"].measured["s0"].quality == Quality.BAD_TIMEOUT


async def test_nothing_is_acknowledged_before_the_checkpoint_is_saved(eventually: Eventually) -> None:
    checkpoint = Flaky(MemoryCheckpoint())
    checkpoint.gate.clear()
    cloud = Cloud(checkpoint=checkpoint)
    site = Site(cloud.broker)
    site.add(schema())
    site.add(readings([("s0", 1, 5.0, 0)]))
    async with running(cloud, site):
        await eventually(lambda: checkpoint.calls == 1)
        await asyncio.sleep(0.2)
        assert site.highest == 0
        assert all(item.seq == -1 for ack in site.acks for item in ack.items), "acknowledged before the save"
        assert (await cloud.history.readings(point("s0"), *EVER)).value.tolist() == [5.0]
        checkpoint.gate.set()
        await eventually(lambda: site.drained)


@pytest.mark.parametrize("late", [False, True], ids=["before writing", "after writing"])
@pytest.mark.parametrize("part", ["history", "checkpoint", "results"])
async def test_an_outage_repeats_the_writing_and_never_the_step(part: str, late: bool, eventually: Eventually) -> None:
    history, checkpoint = Flaky(MemoryHistory()), Flaky(MemoryCheckpoint())
    cloud = Cloud(history, checkpoint)
    cloud.shelf.put(bound(level(), "a", s0="s0"))
    away = Unavailable("away")
    if part == "results":
        cloud.refusing = [away, away]
    else:
        store = history if part == "history" else checkpoint
        setattr(store, "after" if late else "before", raising(away, 3))
    site = Site(cloud.broker)
    site.add(result(), "results")
    for body in story(5):
        site.add(body)
    async with running(cloud, site) as worker:
        await eventually(lambda: site.drained)
        counted = dict(worker.live.figures().outcomes)
        found = worker._bank.state(worker._fleet.members["a"].handle)
    bank, tally, _ = undisturbed(story(5), bound(level(), "a", s0="s0"))
    assert counted == dict(tally.outcomes)
    assert same(found, bank.state(0))
    assert cloud.results == [Told(SOURCE, result())]


def same(a: tuple[int, Any, Any], b: tuple[int, Any, Any]) -> bool:
    return a[0] == b[0] and a[1].tobytes() == b[1].tobytes() and a[2].tobytes() == b[2].tobytes()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("stores", ["memory", "sqlite"])
async def test_a_worker_killed_at_random_points_gives_the_undisturbed_posterior(
    stores: str, seed: int, tmp_path: Path, eventually: Eventually
) -> None:
    """Cancelled anywhere and rebuilt from its stores, over a lossy link: bit-equal twins, nothing lost or doubled."""
    rng = random.Random(seed)
    bodies = story(50, seed)
    twins = bound(driven(), "two"), bound(level(), "one", s0="s0")
    history: History = MemoryHistory() if stores == "memory" else SqliteHistory(tmp_path / "h.db")
    checkpoint: Checkpoint = MemoryCheckpoint() if stores == "memory" else SqliteCheckpoint(tmp_path / "c.db")
    async with history, checkpoint:
        flaky, saving = Flaky(history), Flaky(checkpoint)
        cloud = Cloud(flaky, saving, MemoryBroker(drop=0.05, duplicate=0.1, reorder=0.1, seed=seed))
        cloud.shelf.put(*twins)
        site = Site(cloud.broker)
        for body in bodies:
            site.add(body)
        lives = 0
        async with asyncio.TaskGroup() as tasks:
            sending = tasks.create_task(site.run(burst=rng.randrange(2, 8)))
            while not site.drained:
                lives += 1
                for store in (flaky, saving):
                    store.before = raising(Unavailable("away"), rng.randrange(2))
                    store.after = raising(Unavailable("answer lost"), rng.randrange(2))
                worker, bank = cloud.worker()
                work = tasks.create_task(worker.run())
                for _ in range(rng.randrange(1, 120)):
                    await asyncio.sleep(0.0005)
                    if site.drained and lives > 3:
                        break
                work.cancel()
                await asyncio.wait([work])
            sending.cancel()
        assert lives > 3, "nothing was killed"
        last, bank = cloud.worker()
        last._restore(await cloud.checkpoint.claim(range(256)))
        expected, tally, batches = undisturbed(bodies, *twins)
        for handle in (0, 1):
            assert same(bank.state(handle), expected.state(handle))
        figures = last.live.figures()
        assert dict(figures.outcomes) == dict(tally.outcomes)
        assert figures.applied == tally.stored - tally.outcomes["duplicate"]
        clean = MemoryHistory()
        for batch in batches:
            await clean.append(batch)
        for name in POINTS:
            found, wanted = await history.readings(point(name), *EVER), await clean.readings(point(name), *EVER)
            assert found.time.tolist() == wanted.time.tolist()
            assert found.value.tobytes() == wanted.value.tobytes()
        for twin in twins:
            rows, wanted_rows = await history.estimates(twin.name, *EVER), await clean.estimates(twin.name, *EVER)
            assert rows.time.tolist() == wanted_rows.time.tolist()
            assert rows.mean.tobytes() == wanted_rows.mean.tobytes()
            assert rows.sigma.tobytes() == wanted_rows.sigma.tobytes()


async def test_a_replaced_worker_stops_and_acknowledges_nothing_more(eventually: Eventually) -> None:
    cloud = Cloud()
    site = Site(cloud.broker)
    site.add(schema())
    with pytest.raises(ExceptionGroup) as stopped:
        async with running(cloud, site):
            await eventually(lambda: site.drained)
            await cloud.checkpoint.claim([17])
            site.add(readings([("s0", 1, 5.0, 0)]))
            await asyncio.sleep(5)
    assert stopped.group_contains(Fenced, depth=2) or stopped.group_contains(Fenced)
    assert site.acked["telemetry"] == 0


async def test_acks_carry_the_new_owners_term(eventually: Eventually) -> None:
    cloud = Cloud()
    site = Site(cloud.broker)
    site.add(schema())
    for term in (1, 2):
        site.add(readings([("s0", term, 5.0, 0)]))
        async with running(cloud, site):
            await eventually(lambda: site.drained)
    assert [ack.items[-1].term for ack in site.acks if ack.items][-1] == 2


async def test_the_next_owner_knows_the_schemas_and_the_positions(eventually: Eventually) -> None:
    cloud = Cloud()
    site = Site(cloud.broker)
    site.add(schema())
    async with running(cloud, site):
        await eventually(lambda: site.drained)
    async with running(cloud, site) as worker:
        site.add(readings([("s0", 1, 5.0, 0)]))
        await eventually(lambda: site.drained)
        assert worker.live.figures().applied == 1
        assert worker.live.device_unit(point("u0")) == "mV"
        assert worker.live.device_unit(point("s0")) is None, "not writable"
        assert worker.live.device_unit(point("nothing")) is None
    assert all(item.want_schema is None for ack in site.acks for item in ack.items)


async def test_a_twin_registered_while_running_is_adopted(eventually: Eventually) -> None:
    cloud = Cloud()
    site = Site(cloud.broker)
    site.add(schema())
    site.add(readings([("s0", 1, 5.0, 0)]))
    async with running(cloud, site) as worker:
        await eventually(lambda: site.drained)
        assert worker.live.figures().outcomes["unbound"] == 1
        with pytest.raises(Rejected, match="no-estimate"):
            worker.live.forecast("a", np.array([START], dtype=np.int64))
        cloud.shelf.put(bound(level(), "a", s0="s0"))
        site.add(readings([("s0", 2, 5.0, 0)]))
        await eventually(lambda: site.drained)
        assert worker.live.figures().outcomes["fused"] == 1
        mean, sigma = worker.live.forecast("a", np.array([START + 9 * SECOND], dtype=np.int64))
        assert (mean.shape, sigma.shape) == ((1, 1), (1, 1))
    assert (await cloud.history.readings(point("s0"), *EVER)).value.tolist() == [5.0, 5.0]


async def test_a_changed_model_starts_again_and_a_changed_binding_does_not(eventually: Eventually) -> None:
    cloud = Cloud()
    cloud.shelf.put(bound(level(), "a", s0="s0"), bound(level(), "b", s0="s0"))
    site = Site(cloud.broker)
    site.add(schema())
    site.add(readings([("s0", 1, 5.0, 0)]))
    async with running(cloud, site) as worker:
        await eventually(lambda: site.drained)
        wider = linear([[0.0]], [[1.0]], [0.5], [1.0], sigma=[10.0], name="wider")
        cloud.shelf.put(bound(level(), "a", s0="s1"), bound(wider, "b", s0="s0"))
        site.add(readings([("s1", 2, 5.0, 0)]))
        await eventually(lambda: site.drained)
        beliefs = worker.live.beliefs(["a", "b"], START + 2 * SECOND)
    assert list(beliefs) == ["a"]
    assert beliefs["a"].updates == 2


async def test_one_point_may_serve_two_twins_and_is_counted_once(eventually: Eventually) -> None:
    cloud = Cloud()
    cloud.shelf.put(bound(level(), "a", s0="s0"), bound(level(), "b", s0="s0"))
    site = Site(cloud.broker)
    site.add(schema())
    site.add(readings([("s0", 1, 5.0, 0)]))
    async with running(cloud, site) as worker:
        await eventually(lambda: site.drained)
        assert worker.live.figures().outcomes["fused"] == 1
        assert set(worker.live.beliefs(["a", "b"], START)) == {"a", "b"}


async def test_a_reading_in_another_dimension_is_stored_and_never_fused(eventually: Eventually) -> None:
    cloud = Cloud()
    cloud.shelf.put(bound(level(), "a", s0="s0"))
    site = Site(cloud.broker)
    site.add(schema(unit=parse_unit("degC").si))
    site.add(readings([("s0", 1, 293.0, 0)]))
    async with running(cloud, site) as worker:
        await eventually(lambda: site.drained)
        assert worker.live.figures().outcomes["unit"] == 1
        assert worker.live.beliefs(["a"], START) == {}
    assert (await cloud.history.readings(point("s0"), *EVER)).value.tolist() == [293.0]


def result(number: int = 1) -> ResultBody:
    return ResultBody(
        cmd_id=f"c{number}",
        device="dev",
        point="u0",
        state=State.VERIFIED,
        reason="",
        at=START,
        term=1,
        revision=number,
    )


async def test_results_are_handed_over_before_they_are_acknowledged(eventually: Eventually) -> None:
    cloud = Cloud()
    cloud.refusing = [Unavailable("the ledger is locked")] * 100_000
    site = Site(cloud.broker)
    site.add(result(1), "results")
    async with running(cloud, site):
        await eventually(lambda: len(cloud.refusing) < 100_000)
        assert site.acked["results"] == -1
        cloud.refusing.clear()
        await eventually(lambda: site.drained)
    assert cloud.results == [Told(SOURCE, result(1))]


async def test_what_nobody_trusted_has_signed_is_told_to_people_and_never_to_the_ledger(
    eventually: Eventually,
) -> None:
    cloud = Cloud()
    site = Site(cloud.broker)
    for number, reason in enumerate(("signature", "malformed")):
        refused = {"cmd_id": "unverified", "state": State.REJECTED, "reason": reason}
        site.add(result(number).model_copy(update=refused), "results")
    async with running(cloud, site) as worker:
        await eventually(lambda: site.drained)
        assert worker.live.figures().outcomes["setpoint-refused"] == 2
    assert cloud.results == []
    events = await cloud.history.events(SOURCE, *EVER)
    assert [(event.kind, event.time, event.subject) for event in events] == [("setpoint-refused", START, SOURCE)] * 2
    assert sorted(event.text.partition(":")[0] for event in events) == ["malformed", "signature"]
    assert len({event.id for event in events}) == 2


async def test_a_gap_is_counted_and_told(eventually: Eventually) -> None:
    cloud = Cloud()
    site = Site(cloud.broker)
    site.add(schema())
    site.add(GapBody(last_seq=1, count=42, start=START, end=START + SECOND))
    async with running(cloud, site) as worker:
        await eventually(lambda: site.drained)
        assert worker.live.figures().outcomes["gap"] == 42
    events = await cloud.history.events(SOURCE, *EVER)
    assert [event.kind for event in events] == ["gap"]


async def test_a_record_that_cannot_be_read_is_counted_told_and_passed(eventually: Eventually) -> None:
    cloud = Cloud()
    site = Site(cloud.broker)
    site.add(schema())
    good = readings([("s0", 1, 5.0, 0)])
    site.add(good.model_copy(update={"point": [99]}))
    site.add(good)
    async with running(cloud, site) as worker:
        await eventually(lambda: site.drained)
        assert worker.live.figures().outcomes["malformed"] == 1
        assert worker.live.figures().applied == 1
    events = await cloud.history.events(SOURCE, *EVER)
    assert [event.kind for event in events] == ["refused"]
    assert "point-index" in events[0].text


async def test_a_payload_that_is_no_frame_is_set_aside_with_its_reason(eventually: Eventually) -> None:
    cloud = Cloud()
    site = Site(cloud.broker)
    topic = ROUTE.up("telemetry")
    async with running(cloud, site) as worker:
        await site.link.connected()
        await asyncio.sleep(0.05)
        for payload in (b"\x00\xffnot json", b'{"v":9,"records":[]}', b'{"v":1,"records":[{"source":"x"}]}'):
            await site.publish(topic, payload)
        await site.publish(ROUTE.alive, b"[]")
        await site.publish(ROUTE.latest, b"{")
        await eventually(lambda: worker.live.figures().outcomes.get("unreadable") == 5)
        site.add(schema())
        await eventually(lambda: site.drained)
    told = await cloud.history.events(topic, *EVER)
    assert sorted(event.text.partition(":")[0] for event in told) == ["malformed", "malformed", "version"]
    assert all(event.text.isprintable() for event in told)


async def test_a_batch_that_the_history_refuses_is_tried_in_parts(eventually: Eventually) -> None:
    class Picky(MemoryHistory):
        async def append(self, batch: Batch) -> None:
            if any(7.0 in chunk.value for chunk in batch.chunks):
                raise BadData("refused", "no sevens")
            await super().append(batch)

    cloud = Cloud(Picky())
    site = Site(cloud.broker)
    site.add(schema())
    for second, value in enumerate((5.0, 7.0, 9.0)):
        site.add(readings([("s0", second, value, 0)]))
    async with running(cloud, site) as worker:
        await eventually(lambda: site.drained)
        assert worker.counters.reasons["history"] == 1
    assert (await cloud.history.readings(point("s0"), *EVER)).value.tolist() == [5.0, 9.0]


async def test_latest_values_are_shown_and_neither_stored_nor_fused(eventually: Eventually) -> None:
    cloud = Cloud()
    cloud.shelf.put(bound(level(), "a", s0="s0"))
    site = Site(cloud.broker)
    site.add(schema())
    site.add(readings([("s0", 1, 5.0, 0)]))
    newest = Record(source=SOURCE, stream="telemetry", epoch=1, seq=-1, body=readings([("s0", 60, 9.0, 0)]))
    async with running(cloud, site) as worker:
        await eventually(lambda: site.drained)
        await site.publish(ROUTE.latest, join_frame([encode_record(newest)]))

        def shown() -> Any:
            return worker.live.beliefs(["a"], START + 60 * SECOND)["a"].measured["s0"]

        await eventually(lambda: shown().value == 9.0)
        assert not shown().fused
        assert worker.live.figures().applied == 1
        site.add(readings([("s0", 61, 4.0, 0)]))
        await eventually(lambda: site.drained)
        assert (shown().value, shown().fused) == (4.0, True)
    assert (await cloud.history.readings(point("s0"), *EVER)).value.tolist() == [5.0, 4.0]


async def test_edges_are_known_by_their_announcements(eventually: Eventually) -> None:
    cloud = Cloud()
    site = Site(cloud.broker)
    async with running(cloud, site) as worker:
        await site.link.connected()
        await asyncio.sleep(0.05)
        assert worker.live.edge(SOURCE) is None
        revisions = [{"device": "dev", "point": "u0", "term": 3, "revision": 8}]
        await site.publish(ROUTE.edge_alive("edge-1"), alive(revisions=revisions, at=cloud.now()), retain=True)
        await eventually(lambda: worker.live.edge(SOURCE) is not None)
        edge = worker.live.edge(SOURCE)
        assert edge is not None
        assert (edge.route, edge.nonce, edge.online, edge.term) == (ROUTE, "boot-1", True, 1)
        assert edge.revisions == {("dev", "u0"): (3, 8)}
        await site.publish(ROUTE.edge_alive("edge-1"), alive(online=False, at=cloud.now()), retain=True)
        await eventually(lambda: not worker.live.edge(SOURCE).online)  # type: ignore[union-attr]
        assert [item.alive.online for item in worker.live.presence()] == [False]


def test_the_payload_of_an_outcome_matches_the_bank() -> None:
    assert [outcome.value for outcome in Outcome] == [0, 1, 2, 3]
    assert decode(Record, encode_record(Record(source=SOURCE, stream="results", epoch=1, seq=0, body=result())))
