"""Who can be reached: only who announced itself, lately, through a gateway that is there."""

from __future__ import annotations

import pytest

from cloud.presence import STALE_AFTER_NS, Presences
from tests.cloud.site import ROUTE, SOURCE, START, alive
from wire.errors import BadData
from wire.runtime.link import Delivery

EDGE, GATEWAY = ROUTE.edge_alive("edge-1"), ROUTE.alive


def gateway(**changes: object) -> bytes:
    return alive(name="gw-1", role="gateway", **changes)


def hear(presences: Presences, topic: str, payload: bytes, *, now: int = START, retain: bool = False) -> None:
    presences.hear(Delivery(topic, payload, retain), now)


def online(presences: Presences, now: int = START) -> bool:
    heard = presences.edge(SOURCE)
    assert heard is not None
    return presences.online(heard, now)


def test_an_edge_is_there_until_it_falls_silent() -> None:
    presences = Presences()
    assert presences.edge(SOURCE) is None
    hear(presences, EDGE, alive())
    assert online(presences, START + STALE_AFTER_NS)
    assert not online(presences, START + STALE_AFTER_NS + 1)
    hear(presences, EDGE, alive(at=START + 1), now=START + STALE_AFTER_NS + 1)
    assert online(presences, START + STALE_AFTER_NS + 1)


def test_a_last_will_or_a_farewell_takes_it_away() -> None:
    presences = Presences()
    hear(presences, EDGE, alive())
    hear(presences, EDGE, alive(online=False))
    assert not online(presences)


def test_nobody_is_reached_through_a_gateway_that_is_gone() -> None:
    presences = Presences()
    hear(presences, EDGE, alive())
    hear(presences, GATEWAY, gateway())
    assert online(presences)
    hear(presences, GATEWAY, gateway(online=False))
    assert not online(presences)
    hear(presences, GATEWAY, gateway())
    assert online(presences)


@pytest.mark.parametrize("retain", [False, True])
def test_an_old_announcement_proves_nothing(retain: bool) -> None:
    presences = Presences()
    later = START + STALE_AFTER_NS + 1
    hear(presences, EDGE, alive(), now=later, retain=retain)
    assert not online(presences, later)
    hear(presences, EDGE, alive(at=later, nonce="boot-2"), now=later)
    assert online(presences, later)
    hear(presences, EDGE, alive(), now=later, retain=retain)
    assert online(presences, later), "an older announcement replaced a newer one"


@pytest.mark.parametrize(
    ("topic", "payload"),
    [
        (ROUTE.edge_alive("edge-2"), alive()),
        (EDGE, alive(site="other")),
        (GATEWAY, alive()),
        (ROUTE.edge_alive("gw-1"), gateway()),
        (EDGE, gateway()),
        (GATEWAY, gateway(site="other")),
    ],
)
def test_an_announcement_in_the_wrong_place_is_refused(topic: str, payload: bytes) -> None:
    presences = Presences()
    with pytest.raises(BadData, match="misplaced"):
        hear(presences, topic, payload)
    assert list(presences) == []


def test_garbage_is_refused() -> None:
    with pytest.raises(BadData, match="malformed"):
        hear(Presences(), EDGE, b"{}")
