"""Ids parse to what they print; topics of the two hops never overlap and lead back to their names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire import quality, topics
from wire.errors import BadData
from wire.points import NAME_PATTERN, PointId
from wire.topics import EdgeRoute, GatewayRoute

names = st.from_regex(NAME_PATTERN.removesuffix(r"\Z"), fullmatch=True)


@given(names, names, names, names)
def test_a_point_id_survives_its_written_form(site: str, edge: str, device: str, point: str) -> None:
    point_id = PointId(site, edge, device, point)
    assert PointId.parse(str(point_id)) == point_id


@pytest.mark.parametrize("text", ["", "a/b/c", "a/b/c/d/e", "A/b/c/d", "a/b/c/#", "a/+/c/d", "a/b/c/d\n", "a//c/d"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(BadData, match="point-id"):
        PointId.parse(text)


@given(names, names, names)
def test_topics_name_their_edge_and_gateway(site: str, gateway: str, edge: str) -> None:
    south, north = EdgeRoute(site, gateway, edge), GatewayRoute(site, gateway)
    assert topics.edge_of(south.up("telemetry")) == edge
    assert topics.edge_of(north.setpoint(edge)) == edge
    assert topics.gateway_of(north.up("results")) == north
    assert matches(topics.CLOUD_UP, north.up("telemetry"))
    assert not matches(topics.CLOUD_UP, south.up("telemetry"))
    assert matches(topics.edges_up(site, gateway), south.up("results"))


def matches(topic_filter: str, topic: str) -> bool:
    wanted, given_ = topic_filter.split("/"), topic.split("/")
    return len(wanted) == len(given_) and all(w in ("+", g) for w, g in zip(wanted, given_, strict=True))


def test_an_edge_speaks_for_itself_and_a_gateway_for_its_site() -> None:
    south, north = EdgeRoute("s", "g", "e"), GatewayRoute("s", "g")
    assert topics.may_carry(south.up("telemetry"), "s/e", "telemetry")
    assert topics.may_carry(north.up("results"), "s/e", "results")
    assert topics.may_carry(north.up("results"), "s/other", "results")
    for topic, source, stream in (
        (south.up("telemetry"), "s/other", "telemetry"),
        (south.up("telemetry"), "t/e", "telemetry"),
        (south.up("telemetry"), "s/e", "results"),
        (north.up("telemetry"), "t/e", "telemetry"),
        (north.up("telemetry"), "ss/e", "telemetry"),
        (north.up("telemetry"), "s/e", "results"),
        (south.ack, "s/e", "telemetry"),
        ("", "s/e", "telemetry"),
    ):
        assert not topics.may_carry(topic, source, stream), (topic, source, stream)


def test_the_shard_of_a_lane_never_moves() -> None:
    assert topics.shard_of("demo/gw-1") == GatewayRoute("demo", "gw-1").shard == 178


def test_quality_reads_as_people_say_it() -> None:
    assert [quality.label(code) for code in (0, 65, 129, 200)] == ["good", "uncertain/clock", "bad/timeout", "bad/200"]
    assert not quality.is_bad(127)
    assert quality.is_bad(128)
