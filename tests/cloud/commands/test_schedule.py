"""What a live command needs next."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.commands.model import Command, Entry, Step
from cloud.commands.schedule import AGAIN_NS, NEVER, NS, Action, following
from wire.messages import State
from wire.points import PointId

EXP = 10 * NS
PATIENCE_S = 6.0
HOLD_S = 30.0

COMMAND = Command(
    cmd_id="c1",
    key=None,
    twin="t",
    actuator="a",
    point=PointId("s", "e", "d", "p"),
    value=1.0,
    unit="V",
    value_si=1.0,
    value_device=1.0,
    device_unit="V",
    issuer="i",
    slot=8,
    reason="",
    requested=0,
    exp=EXP,
    hold_s=HOLD_S,
    patience_s=PATIENCE_S,
)


def entry(*whats: str, at: int = 0) -> Entry:
    return Entry(COMMAND, tuple(Step(what, "", at) for what in ("requested", *whats)))


def test_a_request_is_sent_within_its_deadline_and_never_after() -> None:
    assert following(entry(), EXP - 1).action is Action.SEND
    late = following(entry(), EXP)
    assert (late.action, late.state, late.reason) == (Action.CLOSE, State.EXPIRED, "never-sent")


def test_an_inherited_request_may_have_been_sent_so_it_is_neither_sent_nor_called_expired() -> None:
    give_up = EXP + round(PATIENCE_S * NS)
    assert following(entry(), 0, inherited=True) == (Action.WAIT, give_up, State.UNKNOWN, "")
    late = following(entry(), give_up, inherited=True)
    assert (late.action, late.state, late.reason) == (Action.CLOSE, State.UNKNOWN, "interrupted")


def test_what_nobody_accepted_is_sent_again_until_the_deadline_then_waited_for_then_unknown() -> None:
    assert following(entry("sent"), 1).action is Action.WAIT
    assert following(entry("sent"), AGAIN_NS).action is Action.RENEW
    assert following(entry("sent"), EXP).action is Action.WAIT
    late = following(entry("sent"), EXP + round(PATIENCE_S * NS))
    assert (late.action, late.state, late.reason) == (Action.CLOSE, State.UNKNOWN, "no-result")
    assert following(entry("sent", "accepted"), AGAIN_NS).action is Action.WAIT


def test_a_standing_command_is_renewed_every_third_of_its_lease() -> None:
    standing = entry("sent", "verified")
    third = round(HOLD_S * NS) // 3
    assert following(standing, third - 1) == (Action.WAIT, third, State.UNKNOWN, "")
    assert following(standing, third).action is Action.RENEW
    assert following(standing, round(HOLD_S * NS)).action is Action.RELEASE


def test_a_newer_command_on_its_way_holds_renewals_back() -> None:
    assert following(entry("sent", "verified"), 20 * NS, held_back=True).action is Action.WAIT
    assert following(entry("sent", "verified"), 30 * NS, held_back=True).action is Action.RELEASE


@pytest.mark.parametrize("final", [state for state in State if state.final and state is not State.VERIFIED])
def test_a_closed_command_needs_nothing(final: State) -> None:
    assert following(entry("sent", final), 99 * NS).at == NEVER
    assert following(entry("sent", "verified", "released"), 99 * NS).at == NEVER


@given(
    st.lists(st.sampled_from(["sent", "accepted", "verified", "mismatch", "renewed", "released"]), max_size=4),
    st.integers(0, 100 * NS),
    st.booleans(),
    st.booleans(),
)
def test_waiting_is_always_for_a_later_moment(whats: list[str], now: int, inherited: bool, held_back: bool) -> None:
    """Otherwise the attendant would spin."""
    turn = following(entry(*whats), now, inherited=inherited, held_back=held_back)
    if turn.action is Action.WAIT:
        assert turn.at > now


def test_no_patience_ends_before_the_deadline() -> None:
    hasty = Entry(replace(COMMAND, patience_s=0.0), entry("sent").steps)
    assert following(hasty, EXP - 1).action is not Action.CLOSE
