"""From the link to the lanes: what is persisted before what, and who gets an answer."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from edge.actuate import TOLD_AT_ONCE, TOLD_EVERY_S, Actuator, Allowance, Reporter
from edge.config import Write
from edge.guard import NOBODY, Desk, Key, Limits
from edge.lane import Lane, Outcome
from edge.revisions import Revisions
from tests.edge.test_lane import WRITE, Machine
from wire.errors import Unavailable
from wire.messages import UNVERIFIED, PointRevision, ResultBody, Setpoint, State
from wire.runtime.link import Delivery
from wire.runtime.observe import Counters
from wire.signing import TrustedKey, new_key, public_text, sign

POINT = ("tank", "pump")
SIGNER = new_key()


class Bench:
    """An actuator over one lane; ``told`` is what was committed to the results stream."""

    def __init__(self, folder: Path, machine: Machine, write: Write = WRITE, rate: float | None = None) -> None:
        self.machine = machine
        self.counters = Counters()
        self.told: list[ResultBody] = []
        self.revisions = Revisions(folder / "revisions.json")
        self.full = 0
        reporter = Reporter(self._append, self.revisions, time.time_ns)

        async def report(outcome: Outcome) -> None:
            await reporter.report(POINT, "V", outcome)

        self.lane = Lane(machine, 4, 5, write, report, time.monotonic)
        trust = [TrustedKey(kid="k", public_key=public_text(SIGNER), points=("*/*/*/*",))]
        limits: dict[Key, Limits] = {POINT: Limits("V", 0.0, 10.0, rate)}
        desk = Desk("s", "e", "boot", trust, limits, 0)
        self.actuator = Actuator(
            desk, {POINT: self.lane}, self.revisions, reporter, self.counters,
            now=time.time_ns, clock=time.monotonic, clock_trusted=lambda now: True,
        )  # fmt: skip
        self.runs = (reporter.run, self.lane.run)

    async def _append(self, body: ResultBody) -> None:
        if self.full:
            self.full -= 1
            raise Unavailable("disk full")
        self.told.append(body)

    async def serve(self, *payloads: bytes, seconds: float = 0.4) -> list[tuple[str, State, str]]:
        await self.revisions.load()
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(run()) for run in self.runs]
            for payload in payloads:
                await self.actuator.handle(payload)
            await asyncio.sleep(seconds)
            for task in running:
                task.cancel()
        return [(body.cmd_id, body.state, body.reason) for body in self.told]


def envelope(value: float = 3.0, revision: int = 1, cmd_id: str = "c") -> bytes:
    now = time.time_ns()
    body = Setpoint(
        kid="k", site="s", edge="e", device="tank", point="pump", value=value, unit="V", cmd_id=cmd_id, issuer="me",
        slot=8, term=1, revision=revision, iat=now, exp=now + 5_000_000_000, hold_s=60.0, nonce="boot", reason="",
    )  # fmt: skip
    return sign(body, SIGNER)


async def test_the_revision_is_on_disk_before_the_device_is_written(tmp_path: Path) -> None:
    held: list[bytes] = []
    machine = Machine(follow=lambda value: held.append((tmp_path / "revisions.json").read_bytes()) or value)
    bench = Bench(tmp_path, machine)
    assert await bench.serve(envelope(revision=9)) == [
        ("c", State.ACCEPTED, "accepted"),
        ("c", State.VERIFIED, "readback"),
    ]
    assert b'"revision": 9' in held[0]


async def test_a_revision_that_cannot_be_kept_is_not_acted_on(tmp_path: Path) -> None:
    bench = Bench(tmp_path, Machine())
    bench.revisions._path = tmp_path / "missing" / "revisions.json"
    try:
        await bench.serve(envelope())
    except* FileNotFoundError:
        pass
    assert bench.machine.written == []


async def test_a_hundred_repetitions_write_once_and_are_told_a_few_times(tmp_path: Path) -> None:
    bench = Bench(tmp_path, Machine())
    payload = envelope()
    said = await bench.serve(*[payload] * 100)
    assert bench.machine.written == [3.0]
    assert said.count(("c", State.ACCEPTED, "repeated")) == TOLD_AT_ONCE
    assert len(said) == 2 + TOLD_AT_ONCE
    assert [state for _, state, _ in said if state.final] == [State.VERIFIED]
    assert bench.counters.reasons == {"repeated": 99}


async def test_a_flood_of_forgeries_is_told_a_few_times_and_in_nobody_s_name(tmp_path: Path) -> None:
    bench = Bench(tmp_path, Machine())
    true = envelope()
    said = await bench.serve(*[true.replace(b"3.0", b"9.0"), true[:-1]] * 500, true)
    assert bench.machine.written == [3.0]
    assert said.count((UNVERIFIED, State.REJECTED, "signature")) == TOLD_AT_ONCE
    assert said.count((UNVERIFIED, State.REJECTED, "malformed")) == TOLD_AT_ONCE
    assert [line for line in said if line[0] != UNVERIFIED] == [
        ("c", State.ACCEPTED, "accepted"),
        ("c", State.VERIFIED, "readback"),
    ]
    assert {(body.device, body.point) for body in bench.told if body.reason == "signature"} == {POINT}
    assert {(body.device, body.point) for body in bench.told if body.reason == "malformed"} == {NOBODY}


def test_an_allowance_comes_back_with_time() -> None:
    now = 0.0
    allowance = Allowance(lambda: now)
    assert sum(allowance.grants("signature") for _ in range(100)) == TOLD_AT_ONCE
    assert allowance.grants("malformed"), "each reason has its own"
    for _ in range(40):
        now += TOLD_EVERY_S / 4
        allowance.grants("signature")
    now += TOLD_EVERY_S / 2
    assert not allowance.grants("signature"), "one at a time comes back"
    now += 100 * TOLD_EVERY_S
    assert sum(allowance.grants("signature") for _ in range(100)) == TOLD_AT_ONCE


async def test_shuffled_deliveries_end_at_the_highest_revision(tmp_path: Path) -> None:
    bench = Bench(tmp_path, Machine())
    order = [3, 1, 7, 2, 9, 8, 4]
    said = await bench.serve(*[envelope(revision / 10, revision, f"c{revision}") for revision in order])
    assert bench.machine.value == 0.9
    finals = [(cmd_id, state) for cmd_id, state, _ in said if state.final]
    assert len(finals) == len({cmd_id for cmd_id, _ in finals}) == len(order)
    assert dict(finals).pop("c9") is State.VERIFIED


async def test_a_retained_setpoint_is_told_of_and_never_written(tmp_path: Path) -> None:
    bench = Bench(tmp_path, Machine())

    class Once:
        def __init__(self) -> None:
            self.left = [Delivery("t", envelope(), retain=True)]

        def __aiter__(self) -> Once:
            return self

        async def __anext__(self) -> Delivery:
            if not self.left:
                raise StopAsyncIteration
            return self.left.pop()

    await bench.actuator.run(Once())
    assert await bench.serve() == [(UNVERIFIED, State.REJECTED, "retained")]
    assert bench.machine.written == []
    assert bench.counters.reasons == {"retained": 1}


async def test_a_full_disk_delays_a_result_and_loses_none(tmp_path: Path) -> None:
    bench = Bench(tmp_path, Machine())
    bench.full = 2
    assert [state for _, state, _ in await bench.serve(envelope(), seconds=1.0)] == [State.ACCEPTED, State.VERIFIED]


async def test_a_rate_limit_starts_from_what_the_device_holds(tmp_path: Path) -> None:
    bench = Bench(tmp_path, Machine(value=2.9), rate=0.1)
    assert (await bench.serve(envelope(9.0), seconds=0.1))[0] == ("c", State.REJECTED, "slew")
    away = Bench(tmp_path, Machine(silent=True), rate=0.1)
    assert (await away.serve(envelope(3.0, 2), seconds=0.1))[0] == ("c", State.REJECTED, "state-unknown")
    assert bench.machine.written == away.machine.written == []


async def test_a_damaged_file_of_revisions_is_set_aside(tmp_path: Path) -> None:
    file = tmp_path / "revisions.json"
    first = Revisions(file)
    await first.keep(PointRevision(device="d", point="p", term=1, revision=2))
    again = Revisions(file)
    await again.load()
    assert again.held["d", "p"].revision == 2
    file.write_bytes(file.read_bytes()[:-3])
    damaged = Revisions(file)
    await damaged.load()
    assert damaged.damaged
    assert not damaged.held
    assert (tmp_path / "revisions.damaged").exists()
