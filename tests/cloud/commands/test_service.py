"""The setpoint path against an edge that answers, lies, refuses or says nothing."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from cloud.commands.model import Order, Revision, Told
from tests.small_cloud import NS, POINT, ROUTE, SmallCloud, small_cloud
from wire.errors import Rejected
from wire.messages import State

Eventually = Callable[..., Awaitable[None]]
FOUR = Order("tank-1", "pump", 4.0)


async def verified(cloud: SmallCloud, order: Order = FOUR) -> str:
    entry = await cloud.commands.request(order)
    entry = await cloud.commands.wait(entry.command.cmd_id, 10)
    assert entry.state is State.VERIFIED, entry
    return entry.command.cmd_id


async def test_an_order_goes_down_signed_in_the_device_s_unit_and_ends_verified(tmp_path: Path) -> None:
    async with small_cloud(tmp_path) as cloud:
        cmd_id = await verified(cloud)
        (setpoint,) = cloud.edge.writes
        assert (setpoint.value, setpoint.unit) == (4000.0, "mV")
        assert (setpoint.site, setpoint.edge, setpoint.device, setpoint.point) == POINT
        assert setpoint.nonce == "boot-1"
        assert setpoint.hold_s == 30.0
        assert setpoint.exp - setpoint.iat <= 10 * NS
        steps = [step.what for step in (await cloud.commands.get(cmd_id)).steps]
        assert steps == ["requested", "sent", "accepted", "verified"]
        assert await cloud.commands.counts() == {"verified": 1}
        assert await cloud.ledger.verify() == 4


@pytest.mark.parametrize(
    ("order", "reason"),
    [
        (Order("tank-1", "pump", 10.1), "range"),
        (Order("tank-1", "pump", -0.1), "range"),
        (Order("tank-1", "pump", 1.0, unit="kV"), "range"),
        (Order("tank-1", "pump", 4.0, unit="cm"), "unit"),
        (Order("tank-1", "pump", 4.0, unit="furlongs?"), "unit"),
    ],
)
async def test_what_the_type_forbids_is_rejected_with_its_reason_and_never_sent(
    tmp_path: Path, order: Order, reason: str
) -> None:
    async with small_cloud(tmp_path) as cloud:
        entry = await cloud.commands.request(order)
        assert (entry.state, entry.reason) == (State.REJECTED, reason)
        await asyncio.sleep(0.3)
        assert cloud.edge.received == []
        assert await cloud.commands.counts() == {"rejected": 1}


@pytest.mark.parametrize(
    ("order", "reason"),
    [
        (Order("nobody", "pump", 4.0), "unknown-twin"),
        (Order("tank-1", "valve", 4.0), "unknown-actuator"),
        (Order("tank-1", "pump", math.nan), "not-finite"),
        (Order("tank-1", "pump", math.inf), "not-finite"),
    ],
)
async def test_what_names_nothing_never_becomes_a_command(tmp_path: Path, order: Order, reason: str) -> None:
    async with small_cloud(tmp_path) as cloud:
        with pytest.raises(Rejected, match=reason):
            await cloud.commands.request(order)
        assert await cloud.ledger.newest() is None


async def test_an_absent_edge_is_refused_not_queued_for(tmp_path: Path) -> None:
    async with small_cloud(tmp_path) as cloud:
        cloud.field.online = False
        assert (await cloud.commands.request(FOUR)).reason == "edge-offline"
        cloud.field.online, cloud.field.nonce = True, ""
        assert (await cloud.commands.request(FOUR)).reason == "edge-offline"
        cloud.field.nonce, cloud.field.unit = "boot-1", None
        assert (await cloud.commands.request(FOUR)).reason == "not-writable"
        cloud.field.unit = "cm"
        assert (await cloud.commands.request(FOUR)).reason == "not-writable"
        await asyncio.sleep(0.3)
        assert cloud.edge.received == []


async def test_an_order_waits_a_moment_for_an_edge_that_has_not_spoken_since_our_start(tmp_path: Path) -> None:
    async with small_cloud(tmp_path) as cloud:
        cloud.field.heard = False
        asked = asyncio.create_task(cloud.commands.request(FOUR))
        await asyncio.sleep(0.5)
        assert not asked.done()
        cloud.field.heard = True
        assert (await asked).state is State.REQUESTED
        cloud.field.heard = False
        assert (await cloud.commands.request(FOUR)).reason == "edge-offline"


async def test_the_same_key_writes_once_however_often_it_is_asked(tmp_path: Path) -> None:
    order = Order("tank-1", "pump", 4.0, key="k")
    async with small_cloud(tmp_path) as cloud:
        asked = await asyncio.gather(*(cloud.commands.request(order) for _ in range(100)))
        assert len({entry.command.cmd_id for entry in asked}) == 1
        await cloud.commands.wait(asked[0].command.cmd_id, 10)
        assert (await cloud.commands.request(order)).state is State.VERIFIED
        assert len(cloud.edge.writes) == 1
        with pytest.raises(Rejected, match="conflict"):
            await cloud.commands.request(Order("tank-1", "pump", 4.1, key="k"))


@pytest.mark.parametrize("state", [State.MISMATCH, State.FAILED, State.ABORTED])
async def test_what_the_device_did_not_do_is_not_called_done(tmp_path: Path, state: State) -> None:
    async with small_cloud(tmp_path) as cloud:
        cloud.edge.states, cloud.edge.reason, cloud.edge.factor = [State.ACCEPTED, state], "readback", 0.5
        entry = await cloud.commands.request(FOUR)
        entry = await cloud.commands.wait(entry.command.cmd_id, 10)
        assert (entry.state, entry.reason) == (state, "readback")
        assert entry.steps[-1].detail["readback"] == 2000.0
        assert not entry.standing


async def test_a_lost_connection_expires_what_was_never_sent(tmp_path: Path) -> None:
    async with small_cloud(tmp_path) as cloud:
        cloud.broker.stop()
        entry = await cloud.commands.request(Order("tank-1", "pump", 4.0, deadline_s=0.5))
        entry = await cloud.commands.wait(entry.command.cmd_id, 5)
        assert (entry.state, entry.reason) == (State.EXPIRED, "never-sent")
        cloud.broker.start()
        await asyncio.sleep(0.5)
        assert cloud.edge.received == []


async def test_a_short_loss_of_the_broker_is_ridden_out_within_the_deadline(tmp_path: Path) -> None:
    async with small_cloud(tmp_path) as cloud:
        cloud.broker.stop()
        entry = await cloud.commands.request(FOUR)
        await asyncio.sleep(0.4)
        cloud.broker.start()
        entry = await cloud.commands.wait(entry.command.cmd_id, 8)
        assert entry.state is State.VERIFIED


async def test_silence_ends_as_unknown_and_late_words_are_only_noted(tmp_path: Path, eventually: Eventually) -> None:
    async with small_cloud(tmp_path, answering=False) as cloud:
        entry = await cloud.commands.request(FOUR)
        await eventually(lambda: cloud.edge.received)
        cloud.clock.advance(30)
        entry = await cloud.commands.wait(entry.command.cmd_id, 5)
        assert (entry.state, entry.reason) == (State.UNKNOWN, "no-result")
        late = [cloud.edge.word(cloud.edge.received[0], State.VERIFIED)]
        await cloud.commands.on_results(late)
        await cloud.commands.on_results(late)
        entry = await cloud.commands.get(entry.command.cmd_id)
        assert entry.state is State.UNKNOWN
        assert [step.what for step in entry.steps].count("note") == 1
        assert not entry.standing


async def test_a_setpoint_lost_on_the_way_is_sent_again_under_a_higher_revision(
    tmp_path: Path, eventually: Eventually
) -> None:
    async with small_cloud(tmp_path, answering=False) as cloud:
        entry = await cloud.commands.request(FOUR)
        await eventually(lambda: cloud.edge.received)
        cloud.edge.silent = False
        cloud.clock.advance(2.5)
        entry = await cloud.commands.wait(entry.command.cmd_id, 5)
        assert entry.state is State.VERIFIED
        first, second = cloud.edge.received
        assert second.revision > first.revision
        assert second.exp == first.exp


async def test_a_standing_command_is_renewed_by_signed_holds(tmp_path: Path, eventually: Eventually) -> None:
    async with small_cloud(tmp_path) as cloud:
        cmd_id = await verified(cloud)
        for count in (2, 3, 4):
            cloud.clock.advance(10.1)
            await eventually(lambda count=count: len(cloud.edge.received) == count)
        assert {setpoint.cmd_id for setpoint in cloud.edge.received} == {cmd_id}
        assert {setpoint.value for setpoint in cloud.edge.received} == {4000.0}
        assert len(cloud.edge.writes) == 1
        entry = await cloud.commands.get(cmd_id)
        assert entry.standing
        assert [step.what for step in entry.steps].count("note") == 0


async def test_a_restarted_edge_gets_the_standing_command_under_its_new_nonce(
    tmp_path: Path, eventually: Eventually
) -> None:
    async with small_cloud(tmp_path) as cloud:
        await verified(cloud)
        cloud.field.nonce = "boot-2"
        cloud.clock.advance(10.1)
        await eventually(lambda: cloud.edge.received[-1].nonce == "boot-2")


async def test_renewals_stop_when_the_lease_could_not_be_kept(tmp_path: Path, eventually: Eventually) -> None:
    async with small_cloud(tmp_path) as cloud:
        cmd_id = await verified(cloud)
        cloud.field.online = False
        cloud.clock.advance(31)

        async def released() -> bool:
            return not (await cloud.commands.get(cmd_id)).standing

        await eventually(released)
        entry = await cloud.commands.get(cmd_id)
        assert entry.state is State.VERIFIED
        assert (entry.steps[-1].what, entry.steps[-1].reason) == ("released", "lease-ended")
        cloud.field.online = True
        cloud.clock.advance(60)
        await asyncio.sleep(0.3)
        assert len(cloud.edge.received) == 1


async def test_the_edge_s_word_that_it_let_go_ends_the_renewals(tmp_path: Path) -> None:
    async with small_cloud(tmp_path) as cloud:
        cmd_id = await verified(cloud)
        cloud.edge.reason = "lease"
        await cloud.commands.on_results([cloud.edge.word(cloud.edge.received[0], State.ABORTED)])
        entry = await cloud.commands.get(cmd_id)
        assert not entry.standing
        assert entry.state is State.VERIFIED


async def test_a_renewal_refused_for_its_moment_does_not_end_the_command(tmp_path: Path) -> None:
    async with small_cloud(tmp_path) as cloud:
        cmd_id = await verified(cloud)
        for reason in ("nonce", "clock-untrusted"):
            cloud.edge.reason = reason
            await cloud.commands.on_results([cloud.edge.word(cloud.edge.received[0], State.REJECTED)])
        entry = await cloud.commands.get(cmd_id)
        assert entry.standing
        assert [step.what for step in entry.steps].count("note") == 2
        cloud.edge.reason = "not-listed"
        await cloud.commands.on_results([cloud.edge.word(cloud.edge.received[0], State.REJECTED)])
        assert not (await cloud.commands.get(cmd_id)).standing


async def test_a_newer_command_supersedes_an_unfinished_one_and_releases_a_standing_one(
    tmp_path: Path, eventually: Eventually
) -> None:
    async with small_cloud(tmp_path) as cloud:
        standing = await verified(cloud)
        cloud.edge.silent = True
        waiting = await cloud.commands.request(Order("tank-1", "pump", 5.0))
        await eventually(lambda: len(cloud.edge.received) == 2)
        assert (await cloud.commands.get(standing)).standing
        cloud.edge.silent = False
        newest = await verified(cloud, Order("tank-1", "pump", 6.0))
        assert (await cloud.commands.get(waiting.command.cmd_id)).state is State.SUPERSEDED
        first = await cloud.commands.get(standing)
        assert (first.state, first.standing, first.steps[-1].reason) == (State.VERIFIED, False, f"by {newest}")
        cloud.clock.advance(10.1)
        await eventually(lambda: len(cloud.edge.received) == 4)
        await asyncio.sleep(0.2)
        assert cloud.edge.received[-1].cmd_id == newest


async def test_no_renewal_overtakes_a_newer_command_on_its_way(tmp_path: Path, eventually: Eventually) -> None:
    async with small_cloud(tmp_path) as cloud:
        await verified(cloud)
        cloud.edge.silent = True
        newer = await cloud.commands.request(Order("tank-1", "pump", 5.0, deadline_s=60))
        await eventually(lambda: len(cloud.edge.received) == 2)
        cloud.clock.advance(12)
        await eventually(lambda: len(cloud.edge.received) >= 3)
        await asyncio.sleep(0.5)
        assert {setpoint.cmd_id for setpoint in cloud.edge.received[1:]} == {newer.command.cmd_id}


async def test_a_refused_newer_command_leaves_the_older_one_standing(tmp_path: Path, eventually: Eventually) -> None:
    async with small_cloud(tmp_path) as cloud:
        standing = await verified(cloud)
        cloud.edge.states, cloud.edge.reason = [State.REJECTED], "slew"
        entry = await cloud.commands.request(Order("tank-1", "pump", 9.0))
        entry = await cloud.commands.wait(entry.command.cmd_id, 5)
        assert (entry.state, entry.reason) == (State.REJECTED, "slew")
        cloud.edge.states, cloud.edge.reason = [State.ACCEPTED, State.VERIFIED], ""
        assert (await cloud.commands.get(standing)).standing
        cloud.clock.advance(10.1)
        await eventually(lambda: cloud.edge.received[-1].cmd_id == standing)


async def test_a_lower_slot_outranks_a_higher_one(tmp_path: Path) -> None:
    async with small_cloud(tmp_path) as cloud:
        await verified(cloud)
        entry = await cloud.commands.request(Order("tank-1", "pump", 5.0, slot=12))
        assert entry.reason == "outranked"
        await verified(cloud, Order("tank-1", "pump", 5.0, slot=2))


async def test_revisions_jump_over_those_that_the_edge_has_seen(tmp_path: Path) -> None:
    async with small_cloud(tmp_path) as cloud:
        cloud.field.revisions[POINT.device, POINT.point] = Revision(1, 500)
        await verified(cloud)
        assert cloud.edge.received[0].revision == 501


async def test_results_that_fit_nothing_are_left_aside(tmp_path: Path) -> None:
    async with small_cloud(tmp_path) as cloud:
        cmd_id = await verified(cloud)
        source, result = cloud.edge.word(cloud.edge.received[0], State.FAILED)
        strange = [
            result.model_copy(update={"cmd_id": "nobody"}),
            result.model_copy(update={"point": "other"}),
            result.model_copy(update={"state": State.SENT}),
        ]
        await cloud.commands.on_results([Told(source, each) for each in strange])
        assert len((await cloud.commands.get(cmd_id)).steps) == 4


@pytest.mark.parametrize("source", ["demo/edge-zone", "other/edge-tank"])
async def test_an_edge_is_not_believed_about_another_edge_s_command(
    tmp_path: Path, source: str, eventually: Eventually
) -> None:
    async with small_cloud(tmp_path, answering=False) as cloud:
        entry = await cloud.commands.request(FOUR)
        await eventually(lambda: cloud.edge.received)
        for state in (State.ACCEPTED, State.VERIFIED, State.REJECTED):
            word = cloud.edge.word(cloud.edge.received[0], state)
            await cloud.commands.on_results([word._replace(source=source)])
        assert (await cloud.commands.get(entry.command.cmd_id)).state is State.SENT
        await cloud.commands.on_results([cloud.edge.word(cloud.edge.received[0], State.VERIFIED)])
        assert (await cloud.commands.get(entry.command.cmd_id)).state is State.VERIFIED


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (State.ACCEPTED, "repeated"),
        (State.REJECTED, "nonce"),
        (State.REJECTED, "clock-untrusted"),
        (State.SUPERSEDED, "revision"),
    ],
)
async def test_whoever_replays_an_envelope_cannot_end_its_command(
    tmp_path: Path, state: State, reason: str, eventually: Eventually
) -> None:
    async with small_cloud(tmp_path, answering=False) as cloud:
        cmd_id = (await cloud.commands.request(FOUR)).command.cmd_id
        await eventually(lambda: cloud.edge.received)
        (setpoint,) = cloud.edge.received
        await cloud.commands.on_results([cloud.edge.word(setpoint, State.ACCEPTED)])
        cloud.edge.reason = reason
        await cloud.commands.on_results([cloud.edge.word(setpoint, state)] * 2)
        entry = await cloud.commands.get(cmd_id)
        assert entry.state is State.ACCEPTED
        assert [(step.what, step.reason) for step in entry.steps[3:]] == [("note", f"{state} {reason}")]
        cloud.edge.reason = ""
        await cloud.commands.on_results([cloud.edge.word(setpoint, State.VERIFIED)])
        cloud.edge.reason = reason
        await cloud.commands.on_results([cloud.edge.word(setpoint, state)])
        entry = await cloud.commands.get(cmd_id)
        assert entry.state is State.VERIFIED
        assert entry.standing


async def test_waiting_returns_as_soon_as_there_is_news(tmp_path: Path) -> None:
    async with small_cloud(tmp_path, answering=False) as cloud:
        entry = await cloud.commands.request(FOUR)
        async with asyncio.timeout(5):
            while entry.state is State.REQUESTED:
                entry = await cloud.commands.wait(entry.command.cmd_id, 5, after=len(entry.steps))
        assert (await cloud.commands.wait(entry.command.cmd_id, 0.05)).state is State.SENT


async def test_nobody_is_kept_waiting_by_a_service_that_stops(tmp_path: Path) -> None:
    async with small_cloud(tmp_path, answering=False, attending=False) as cloud, asyncio.timeout(5):
        attending = asyncio.create_task(cloud.commands.run())
        entry = await cloud.commands.request(FOUR)
        waiting = asyncio.create_task(cloud.commands.wait(entry.command.cmd_id, 60))
        await asyncio.sleep(0.3)
        assert not waiting.done()
        attending.cancel()
        assert (await waiting).state is State.SENT
        await asyncio.gather(attending, return_exceptions=True)


async def test_a_setpoint_is_never_retained(tmp_path: Path) -> None:
    async with small_cloud(tmp_path) as cloud:
        await verified(cloud)
        assert cloud.broker.retained(ROUTE.setpoint("edge-tank")) == []


async def test_a_new_process_keeps_a_standing_command_alive(tmp_path: Path, eventually: Eventually) -> None:
    async with small_cloud(tmp_path) as cloud:
        cmd_id = await verified(cloud)
    async with small_cloud(tmp_path) as cloud:
        cloud.clock.advance(10.1)
        await eventually(lambda: [setpoint.cmd_id for setpoint in cloud.edge.received] == [cmd_id])


async def test_a_new_process_does_not_revive_a_lease_that_ran_out_meanwhile(tmp_path: Path) -> None:
    async with small_cloud(tmp_path) as cloud:
        cmd_id = await verified(cloud)
    async with small_cloud(tmp_path, attending=False) as cloud:
        cloud.clock.advance(3600)
        attending = asyncio.create_task(cloud.commands.run())
        await asyncio.sleep(0.3)
        attending.cancel()
        await asyncio.gather(attending, return_exceptions=True)
        assert cloud.edge.received == []
        assert not (await cloud.commands.get(cmd_id)).standing


async def test_a_new_process_sends_no_old_request(tmp_path: Path) -> None:
    async with small_cloud(tmp_path, attending=False) as cloud:
        entry = await cloud.commands.request(FOUR)
    async with small_cloud(tmp_path) as cloud:
        await asyncio.sleep(0.3)
        cloud.clock.advance(60)
        entry = await cloud.commands.wait(entry.command.cmd_id, 5)
        assert (entry.state, entry.reason) == (State.UNKNOWN, "interrupted")
        assert cloud.edge.received == []


@pytest.mark.parametrize("writes", range(1, 9))
async def test_a_stop_after_any_line_leaves_a_ledger_that_ends_every_command_once(tmp_path: Path, writes: int) -> None:
    """The attendant dies after its n-th line; the next process brings every command to exactly one end."""
    async with small_cloud(tmp_path, attending=False) as cloud:
        attending = asyncio.create_task(cloud.commands.run())
        ids = [(await cloud.commands.request(Order("tank-1", "pump", 4.0 + n))).command.cmd_id for n in range(3)]
        while await cloud.ledger.verify() < 3 + writes and not attending.done():
            await asyncio.sleep(0)
        attending.cancel()
        await asyncio.gather(attending, return_exceptions=True)
    async with small_cloud(tmp_path) as cloud:
        cloud.clock.advance(20)
        for cmd_id in ids:
            entry = await cloud.commands.wait(cmd_id, 5)
            assert entry.state.final
            assert sum(step.what in [state for state in State if state.final] for step in entry.steps) == 1
        await cloud.ledger.verify()
        standing = [cmd_id for cmd_id in ids if (await cloud.commands.get(cmd_id)).standing]
        assert len(standing) <= 1
