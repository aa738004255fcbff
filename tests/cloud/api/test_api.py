"""The HTTP API in process: real registry, ledger and history files behind it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest

from cloud.api.app import Cloud, create_app
from cloud.history.base import Batch, EstimateRows, RawChunk
from cloud.history.sqlite import SqliteHistory
from tests.small_cloud import NS, TWIN, TYPE, SmallCloud, alive, small_cloud
from wire.points import PointId

TOKEN = "correct horse battery staple"
HEADERS = {"Authorization": f"Bearer {TOKEN}"}
H1 = PointId("demo", "edge-tank", "tank", "h1")


@asynccontextmanager
async def api(folder: Path) -> AsyncIterator[tuple[httpx.AsyncClient, SmallCloud]]:
    async with small_cloud(folder) as cloud, SqliteHistory(folder / "history.db") as history:
        start = cloud.clock() - 5 * NS
        times = start + np.arange(3, dtype=np.int64) * NS
        chunk = RawChunk(
            source="demo/edge-tank",
            epoch=1,
            seq=0,
            points=[H1],
            point=np.zeros(3, dtype=np.int64),
            time=times,
            ordinal=np.zeros(3, dtype=np.int64),
            value=np.array([0.10, np.nan, 0.12]),
            quality=np.array([0, 129, 65], dtype=np.uint8),
        )
        twin = cloud.registry.twins()["tank-1"]
        rows = EstimateRows(
            type_hash=twin.type.hash,
            states=("h",),
            twin=["tank-1"] * 3,
            time=times,
            mean=np.array([[0.10], [0.11], [0.12]]),
            sigma=np.full((3, 1), 0.002),
            revision=np.ones(3, dtype=np.int64),
        )
        await history.append(Batch(chunks=[chunk], estimates=[rows]))
        app = create_app(Cloud(cloud.registry, cloud.live, history, cloud.commands, cloud.clock), TOKEN)
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://twin", headers=HEADERS) as client:
            yield client, cloud


ROUTES = [
    ("POST", "/v1/apply"),
    ("GET", "/v1/twins"),
    ("GET", "/v1/twins/tank-1"),
    ("GET", "/v1/twins/tank-1/now"),
    ("GET", "/v1/twins/tank-1/history"),
    ("GET", "/v1/twins/tank-1/next"),
    ("POST", "/v1/twins/tank-1/setpoints"),
    ("GET", "/v1/setpoints/x"),
    ("GET", "/v1/stats"),
    ("GET", "/v1/health"),
    ("GET", "/anything/else"),
]


async def test_nothing_opens_without_the_token(tmp_path: Path) -> None:
    async with api(tmp_path) as (client, cloud):
        for wrong in ("", "Bearer", f"Bearer {TOKEN}x", f"bearer {TOKEN}", f"Basic {TOKEN}", "Bearer caf\u00e9"):
            for method, path in ROUTES:
                headers = {"Authorization": wrong.encode("latin-1")}
                answer = await client.request(method, path, headers=headers, json={"actuator": "pump", "value": 4})
                assert answer.status_code == 401, (method, path)
        assert await cloud.ledger.newest() is None


async def test_twins_are_listed_and_shown_in_declared_units(tmp_path: Path) -> None:
    async with api(tmp_path) as (client, cloud):
        (line,) = (await client.get("/v1/twins")).json()["twins"]
        assert line["twin"] == "tank-1"
        assert line["quality"] == "good"
        assert 0.9 < line["age_s"] < 2
        shown = (await client.get("/v1/twins/tank-1")).json()
        assert shown["states"] == {"h": "cm"}
        assert shown["sensors"]["level"]["noise"] == pytest.approx(0.3)
        assert shown["actuators"]["pump"]["high"] == pytest.approx(10)
        assert shown["actuators"]["pump"]["write"] == "demo/edge-tank/tank/pump1-set"
        cloud.live.started = False
        (line,) = (await client.get("/v1/twins")).json()["twins"]
        assert (line["age_s"], line["quality"]) == (None, "bad/no-data")
        answer = await client.get("/v1/twins/tank-1/now")
        assert (answer.status_code, answer.json()["error"]) == (409, "no-estimate")


async def test_now_says_how_sure_how_old_and_how_good(tmp_path: Path) -> None:
    async with api(tmp_path) as (client, cloud):
        now = (await client.get("/v1/twins/tank-1/now")).json()
        assert now["states"]["h"] == {"value": pytest.approx(10.0), "sigma": pytest.approx(0.1), "unit": "cm"}
        assert now["sensors"]["level"]["value"] == pytest.approx(10.3)
        assert now["sensors"]["level"]["quality"] == "good"
        assert now["inputs"]["v"]["value"] == pytest.approx(3.0)
        assert now["nis_band"] == [0.8, 1.3]
        cloud.live.time = cloud.clock() - 6 * NS
        now = (await client.get("/v1/twins/tank-1/now")).json()
        assert now["quality"] == "bad/stale"
        assert now["sensors"]["level"]["quality"] == "bad/stale"
        assert now["age_s"] == pytest.approx(6, abs=0.5)


async def test_history_gives_estimates_and_readings(tmp_path: Path) -> None:
    async with api(tmp_path) as (client, _):
        found = (await client.get("/v1/twins/tank-1/history?from=1m")).json()
        assert found["states"]["h"]["mean"] == pytest.approx([10, 11, 12])
        assert found["states"]["h"]["sigma"] == pytest.approx([0.2] * 3)
        level = found["readings"]["level"]
        assert level["value"] == [pytest.approx(10), None, pytest.approx(12)]
        assert level["quality"] == ["good", "bad/timeout", "uncertain/clock"]
        assert level["time"] == found["time"]
        first, second = found["time"][:2]
        found = (await client.get(f"/v1/twins/tank-1/history?from={first}&to={second}&readings=no")).json()
        assert found["time"] == [first]
        assert found["readings"] == {}
        for wrong in ("from=now&to=10m", "from=yesterday", "from=2026-01-01T00:00:00", "from=8 d"):
            answer = await client.get(f"/v1/twins/tank-1/history?{wrong}")
            assert answer.status_code in (400, 422), wrong


async def test_next_is_a_band_into_the_future(tmp_path: Path) -> None:
    async with api(tmp_path) as (client, _):
        found = (await client.get("/v1/twins/tank-1/next?for=10m")).json()
        assert found["time"][-1] - found["at"] == 600 * NS
        assert len(found["time"]) == 121
        assert found["states"]["h"]["mean"][0] == pytest.approx(10)
        assert found["states"]["h"]["sigma"][-1] == pytest.approx(1.0)
        short = (await client.get("/v1/twins/tank-1/next?for=500ms")).json()
        assert [time - short["at"] for time in short["time"]] == [0, NS // 2]
        for wrong in ("for=0s", "for=8d", "for=-1m", "for=soon"):
            assert (await client.get(f"/v1/twins/tank-1/next?{wrong}")).status_code in (400, 422), wrong


async def test_a_setpoint_is_asked_for_and_followed_to_its_end(tmp_path: Path) -> None:
    async with api(tmp_path) as (client, cloud):
        answer = await client.post("/v1/twins/tank-1/setpoints", json={"actuator": "pump", "value": 4500, "unit": "mV"})
        assert answer.status_code == 202
        story = answer.json()
        assert (story["state"], story["final"]) == ("requested", False)
        story = (await client.get(f"/v1/setpoints/{story['id']}?wait=10s")).json()
        assert (story["state"], story["final"], story["standing"]) == ("verified", True, True)
        assert [step["what"] for step in story["steps"]] == ["requested", "sent", "accepted", "verified"]
        assert cloud.edge.writes[0].value == pytest.approx(4500)
        refused = await client.post("/v1/twins/tank-1/setpoints", json={"actuator": "pump", "value": 99})
        assert refused.status_code == 202
        assert (refused.json()["state"], refused.json()["reason"]) == ("rejected", "range")
        stats = (await client.get("/v1/stats")).json()
        assert stats["setpoints"] == {"rejected": 1, "verified": 1}
        assert stats["last_setpoint"]["reason"] == "range"


@pytest.mark.parametrize(
    ("path", "body", "status", "error"),
    [
        ("tank-1", {"actuator": "pump", "value": True}, 400, "malformed"),
        ("tank-1", {"actuator": "pump", "value": "4"}, 400, "malformed"),
        ("tank-1", '{"actuator": "pump", "value": NaN}', 400, "malformed"),
        ("tank-1", '{"actuator": "pump", "value": Infinity}', 400, "malformed"),
        ("tank-1", '{"actuator": "pump", "value": 4', 400, "malformed"),
        ("tank-1", {"actuator": "pump", "value": 4, "extra": 1}, 400, "malformed"),
        ("tank-1", {"actuator": "pump"}, 400, "malformed"),
        ("tank-1", {"actuator": "pump", "value": 4, "deadline_s": 0}, 400, "malformed"),
        ("tank-1", {"actuator": "pump", "value": 4, "reason": "x" * 20_000}, 413, "oversize"),
        ("tank-1", {"actuator": "valve", "value": 4}, 404, "unknown-actuator"),
        ("nobody", {"actuator": "pump", "value": 4}, 404, "unknown-twin"),
    ],
)
async def test_a_wrong_setpoint_is_refused_with_its_reason(
    tmp_path: Path, path: str, body: object, status: int, error: str
) -> None:
    async with api(tmp_path) as (client, cloud):
        content = body if isinstance(body, str) else json.dumps(body)
        answer = await client.post(f"/v1/twins/{path}/setpoints", content=content)
        assert (answer.status_code, answer.json()["error"]) == (status, error)
        assert await cloud.ledger.newest() is None


async def test_a_repeated_key_is_the_same_setpoint_and_a_changed_body_a_conflict(tmp_path: Path) -> None:
    async with api(tmp_path) as (client, _):
        body = {"actuator": "pump", "value": 4, "key": "k"}
        first = (await client.post("/v1/twins/tank-1/setpoints", json=body)).json()
        again = (await client.post("/v1/twins/tank-1/setpoints", json=body)).json()
        assert again["id"] == first["id"]
        other = await client.post("/v1/twins/tank-1/setpoints", json=body | {"value": 5})
        assert (other.status_code, other.json()["error"]) == (409, "conflict")


async def test_files_are_applied_or_answered_with_every_problem(tmp_path: Path) -> None:
    async with api(tmp_path) as (client, _):
        files = [{"file": "t.yaml", "text": TYPE.replace("0.3 cm", "0.4 cm")}]
        answer = await client.post("/v1/apply", json={"files": files})
        assert answer.json() == {
            "changes": [{"kind": "type", "name": "small-tank", "action": "changed", "revision": 2}]
        }
        wrong = [
            {"file": "a.yaml", "text": TYPE.replace("states", "stated")},
            {"file": "b.yaml", "text": TWIN.replace("h1", "")},
        ]
        answer = await client.post("/v1/apply", json={"files": wrong})
        assert answer.status_code == 422
        assert {problem["file"] for problem in answer.json()["problems"]} == {"a.yaml", "b.yaml"}
        big = [{"file": "a.yaml", "text": "#" * (5 << 20)}]
        assert (await client.post("/v1/apply", json={"files": big})).status_code == 413


async def test_stats_and_health_tell_of_the_whole(tmp_path: Path) -> None:
    async with api(tmp_path) as (client, cloud):
        assert (await client.get("/v1/health")).json() == {"status": "ok", "twins": 1, "away": []}
        cloud.live.alive = [alive("edge-a", online=True, at=cloud.clock()), alive("edge-b", online=False, at=1)]
        assert (await client.get("/v1/health")).json()["away"] == ["demo/edge-b"]
        stats = (await client.get("/v1/stats")).json()
        assert (stats["readings_applied"], stats["duplicates"]) == (1000, 2)
        assert stats["latency_ms"] == {"p50": 12.5, "p99": 80.0}
        health = stats["twins"]["tank-1"]
        assert (health["nis"], health["band"], health["consistent"]) == (1.1, [0.8, 1.3], True)
        assert [item["backlog"] for item in stats["presence"]] == [7, 7]


async def test_what_is_unknown_is_said_to_be(tmp_path: Path) -> None:
    async with api(tmp_path) as (client, _):
        for path in ("twins/nobody", "twins/nobody/now", "twins/nobody/history", "twins/nobody/next", "setpoints/x"):
            assert (await client.get(f"/v1/{path}")).status_code == 404, path
        assert (await client.get("/v2/twins")).json()["error"] == "no-such-route"
        assert (await client.delete("/v1/twins")).status_code == 405
        for query in ("wait=2m", "wait=soon", "after=-1&wait=1s"):
            assert (await client.get(f"/v1/setpoints/x?{query}")).status_code in (400, 404, 422)
