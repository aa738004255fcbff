"""Bad input against whole processes: refused, counted, set aside with its reason, and the pipeline goes on."""

from __future__ import annotations

import asyncio
import json
import math
import re
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import aiomqtt
import httpx
import pytest
from asyncua import ua

from tests.edge.modbus_stub import Stub, serving
from tests.edge.test_opcua import plant
from tests.small_site import PROFILE, SmallSite, small_site
from wire.topics import EdgeRoute, GatewayRoute

SCRIPTS = Path(sys.executable).parent
PROBLEM = re.compile(r"[\w./-]+\.yaml:\d+:\d+: .+")
TRUE = {0: 1200, 4: 3000}
"""What the devices really measure: a level of 12 cm, a pump at 3 V."""

pytestmark = pytest.mark.flow
Eventually = Callable[..., Awaitable[None]]


class Broker(Protocol):
    port: int


# --- wrong configuration ---------------------------------------------------------------------------------------------

LINK = "{kind: mqtt, host: 127.0.0.1, port: PORT}"
FILES = {
    "edge.yaml": f"""\
edge: edge-1
site: Demo Site
gatway: gw-1
state: state
link: {LINK}
linger: true
devices:
  - {{device: plc, kind: modbus, profile: plc.yaml, period: 100, host: 127.0.0.1, port: PORT, unt: 1}}
""",
    "sound-edge.yaml": f"""\
edge: edge-1
site: demo
gateway: gw-1
state: state
link: {LINK}
devices:
  - {{device: plc, kind: modbus, profile: profile.yaml, period: 100 ms, host: 127.0.0.1, port: PORT}}
""",
    "profile.yaml": """\
profile: plc
kind: modbus
points:
  - {point: level, unit: cm, range: [25, 0], table: inputs, address: 0}
  - {point: pump, unit: V, table: input, adress: 4, scale: .nan}
  - {point: pump-set, unit: V, table: holding, address: true, write: {range: [0, 10], safe: 30}}
""",
    "gateway.yaml": f"""\
gateway: gw-1
site: demo
state: state
south: {LINK}
north: {{kind: mqtt, host: 127.0.0.1, prot: PORT}}
quota: 1 kB
points:
  - {{edge: e, device: d, point: p, range: [1, 5], deadband: .inf}}
""",
    "cloud.yaml": f"""\
cloud: demo
state: state
link: {LINK}
keys: keys
histroy: {{kind: sqlite}}
checkpoint: {{kind: postgres}}
api: {{host: 127.0.0.1, port: true, token_file: token}}
""",
    "type.yaml": """\
type: pump
version: 1.0.0
horizon: 10 s
states:
  voltage: {unit: V, initial: from measurd, range: [10, 0]}
dynamics: {voltage: "-voltage/3[s] + 5[A]"}
process_noise: {voltage: 0.5 V}
offsets: none
sensors:
  measured: {measures: voltag, unit: V, noise: 0.02 V, period: 500 ms}
""",
    "twin.yaml": """\
twin: level-1
of: signal
with: {unit: cm, nois: 0.3 cm}
bind: {value: home/edge-1/tank}
mode: actt
""",
    "scenario.yaml": """\
scenario: quickstart
seed: -7
tick: 20
devices:
  - {device: tank, plant: tnak, profile: plc.yaml, serve: {kind: modbus, host: 127.0.0.1, port: PORT}}
""",
}
MISTAKES = {
    ("twin-edge", "edge.yaml"): {
        "edge.yaml:1:1": "`gateway` is missing",
        "edge.yaml:2:7": "Demo Site",
        "edge.yaml:3:1": "did you mean `gateway`?",
        "edge.yaml:6:9": "with its unit, such as 100 ms, not true",
        "edge.yaml:8:60": "with its unit, such as 100 ms, not 100",
        "edge.yaml:8:": "did you mean `unit`?",
    },
    ("twin-edge", "sound-edge.yaml"): {
        "profile.yaml:4:": "did you mean `input`?",
        "profile.yaml:5:": "did you mean `address`?",
        "profile.yaml:5:5": "`address` is missing",
        "profile.yaml:6:": "must be an integer, not true",
    },
    ("twin-gateway", "gateway.yaml"): {
        "gateway.yaml:5:38": "did you mean `port`?",
        "gateway.yaml:6:8": "greater than or equal to 1048576",
        "gateway.yaml:8:": "must be a finite number, not Infinity",
    },
    ("twin-cloud", "cloud.yaml"): {
        "cloud.yaml:5:1": "did you mean `history`?",
        "cloud.yaml:6:20": "must be 'sqlite' or 'memory', not \"postgres\"",
        "cloud.yaml:7:30": "must be an integer, not true",
    },
    ("twin check", "type.yaml"): {
        "type.yaml:5:31": "no sensor is called measurd (there are measured)",
        "type.yaml:5:52": "the lower bound is not below the upper one",
        "type.yaml:6:22": "V/s + A: only values of one dimension are added",
        "type.yaml:7:26": "for example 0.1 V/sqrt(s)",
        "type.yaml:10:24": "unknown name voltag; there are voltage",
    },
    ("twin check", "twin.yaml"): {
        "twin.yaml:3:18": "did you mean `noise`?",
        "twin.yaml:4:15": "is not site/edge/device/point",
        "twin.yaml:5:7": "did you mean `act`?",
    },
    ("twin-sim", "scenario.yaml"): {
        "scenario.yaml:2:7": "greater than or equal to 0, not -7",
        "scenario.yaml:3:7": "with its unit, such as 100 ms, not 20",
        "scenario.yaml:5:27": "available here: tank, vehicle, zone",
    },
}


@pytest.mark.parametrize(("program", "file"), MISTAKES)
def test_wrong_configuration_names_every_mistake_and_opens_no_socket(program: str, file: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        _write(tmp_path, listener.getsockname()[1])
        done = _run(tmp_path, program, file)
        with pytest.raises(BlockingIOError):
            listener.accept()
    assert done.returncode == 2, done.stderr
    lines = done.stderr.splitlines()
    assert all(PROBLEM.fullmatch(line) for line in lines), done.stderr
    for place, said in MISTAKES[program, file].items():
        assert any(line.startswith(place) and said in line for line in lines), f"{place} {said}\n{done.stderr}"
    assert not (tmp_path / "state").exists()


def test_the_listener_would_notice(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20)
        port = listener.getsockname()[1]
        link = LINK.replace("PORT", str(port))
        right = f"gateway: gw-1\nsite: demo\nstate: state\nsouth: {link}\nnorth: {link}\n"
        (tmp_path / "gateway.yaml").write_text(right)
        process = subprocess.Popen([str(SCRIPTS / "twin-gateway"), "gateway.yaml"], cwd=tmp_path, stderr=-3)
        try:
            listener.accept()[0].close()
        finally:
            process.terminate()
            assert process.wait(timeout=10) == 0


def _write(folder: Path, port: int) -> None:
    (folder / "plc.yaml").write_text(PROFILE)
    for name, text in FILES.items():
        (folder / name).write_text(text.replace("PORT", str(port)))


def _run(folder: Path, program: str, file: str) -> subprocess.CompletedProcess[str]:
    name, *words = program.split()
    command = [str(SCRIPTS / name), *words, file]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=30, check=False)


# --- hostile payloads ------------------------------------------------------------------------------------------------


def schema(**changes: object) -> dict[str, Any]:
    point = {"device": "d", "point": "p", "unit": "cm", "device_unit": "cm"} | changes
    return {"kind": "schema", "schema_hash": "h", "config_hash": "c", "points": [point]}


def readings(**changes: object) -> dict[str, Any]:
    columns = {"base": time.time_ns(), "point": [0], "dt": [0], "value": [1.0]}
    return {"kind": "readings", "schema_hash": "h"} | columns | changes


def gap(last_seq: int) -> dict[str, Any]:
    return {"kind": "gap", "last_seq": last_seq, "count": 1, "start": 0, "end": 0}


def frame(source: str, *bodies: object, **changes: object) -> bytes:
    identity = {"source": source, "stream": "telemetry", "epoch": 7}
    records = [identity | {"seq": seq, "body": body} for seq, body in enumerate(bodies)]
    return json.dumps({"v": 1, "records": records} | changes).encode()


def no_frames(source: str) -> dict[str, tuple[bytes, str]]:
    """Payloads that cannot be read as a whole, with the word that their reason begins with."""
    good = frame(source, schema(), readings())
    return {
        "garbage": (b"\x00\xff\xfe not json \x80", "malformed"),
        "empty": (b"", "malformed"),
        "truncated": (good[: len(good) // 2], "malformed"),
        "oversize": (good + b" " * (1 << 20), "oversize"),
        "deep": (b'{"v":1,"records":' + b"[" * 200_000, "malformed"),
        "version": (frame(source, schema(), v=2), "version"),
        "extra": (frame(source, schema(), more=1), "malformed"),
        "nan": (frame(source, schema(), readings(value=[math.nan])), "malformed"),
        "infinity": (frame(source, schema(), readings(value=[-math.inf])), "malformed"),
        "huge-number": (frame(source, schema(), readings(value=[10**400])), "malformed"),
        "true": (frame(source, schema(), readings(value=[True])), "malformed"),
        "text": (frame(source, schema(), readings(value=["1.0"])), "malformed"),
        "short-column": (frame(source, schema(), readings(dt=[0, 1])), "malformed"),
        "huge-epoch": (good.replace(b'"epoch": 7', b'"epoch": %d' % 10**30), "malformed"),
        "huge-gap": (frame(source, schema(), gap(10**30)), "malformed"),
        "backward-gap": (frame(source, schema(), gap(0)), "malformed"),
        "other-source": (frame("other/edge-1", schema(), readings()), "origin"),
    }


UNREADABLE = {
    "index": (readings(point=[99]), "unknown-point"),
    "huge-index": (readings(point=[10**30]), "unknown-point"),
    "far-future": (readings(point=[99], dt=[10**30]), "unknown-point"),
    "time": (readings(dt=[10**30]), "overflow"),
    "quality": (readings(quality=[-5]), "quality"),
    "side": (readings(value=[], side=[[5, "x"]]), "side"),
    "huge-side": (readings(value=[], side=[[10**30, "x"]]), "side"),
    "twice": (readings(point=[0, 0], dt=[0, 0], value=[], side=[[0, "x"], [0, "y"]]), "side"),
}
"""Records that are well formed and cannot be meant, with their reason at the gateway."""
AT_THE_CLOUD = {"unknown-point": "point-index"}


def edge_hop() -> dict[str, tuple[bytes, str]]:
    """Topic -> (payload, reason), each from an edge of its own."""
    shots = {f"edge-1/{name}": shot for name, shot in no_frames("demo/edge-1").items()}
    found = {}
    for name, (payload, reason) in shots.items():
        edge = name.partition("/")[2]
        own = payload.replace(b'"demo/edge-1"', f'"demo/{edge}"'.encode())
        found[EdgeRoute("demo", "gw-1", edge).up("telemetry")] = (own, reason)
    victim = frame("demo/edge-1", schema(), readings())
    found[EdgeRoute("demo", "gw-1", "impostor").up("telemetry")] = (victim, "origin")
    found[EdgeRoute("demo", "gw-1", "impostor").latest] = (victim, "impostor")
    found[EdgeRoute("demo", "gw-1", "impostor").alive] = (b"{}", "malformed")
    return found


@pytest.mark.deadline(90)
async def test_hostile_payloads_are_set_aside_and_the_live_stream_stays_complete(
    tmp_path: Path, mosquitto: Broker, free_port: Callable[[], int], eventually: Eventually
) -> None:
    async with serving(Stub(words=TRUE)) as stub:
        devices = _device("plc", stub.port, "500 ms")
        async with (
            small_site(
                tmp_path, mqtt_port=mosquitto.port, api_port=free_port(), devices=devices, eventually=eventually
            ) as site,
            aiomqtt.Client("127.0.0.1", mosquitto.port) as client,
        ):
            before = site.stored()[0]
            await _attack_the_gateway(site, client, eventually)
            await _attack_the_cloud(site, client, eventually)
            assert site.all_alive(), site.log("gateway")[-2000:] + site.log("cloud")[-2000:]
            await eventually(lambda: site.stored()[0] > before + 6, 20)
            await eventually(lambda: site.stored() == (site.committed(), site.committed()), 30)
            assert not any(kind == "gap" and subject == "demo/edge-1" for kind, subject, _ in site.events())
            async with _http(site) as api:
                stats = (await api.get("/v1/stats")).json()
            assert stats["duplicates"] == 0
            assert stats["outcomes"]["unreadable"] == len(no_frames("")) + 1
            assert stats["outcomes"]["malformed"] == sum(len(body["point"]) for body, _ in UNREADABLE.values())
            assert [await site.end(name) for name in ("edge", "gateway", "cloud")] == [0, 0, 0]


async def _attack_the_gateway(site: SmallSite, client: aiomqtt.Client, eventually: Eventually) -> None:
    shots = edge_hop()
    for topic, (payload, _) in shots.items():
        await client.publish(topic, payload)
    for name, (body, _) in UNREADABLE.items():
        route = EdgeRoute("demo", "gw-1", f"e-{name}")
        await client.publish(route.up("telemetry"), frame(f"demo/e-{name}", schema(), body, readings()))
    wrong_unit = frame("demo/e-unit", schema(unit="furlongg", device_unit="furlongg"), readings(), readings(base=1))
    await client.publish(EdgeRoute("demo", "gw-1", "e-unit").up("telemetry"), wrong_unit)
    await eventually(lambda: len(site.dead_letters()) == len(shots) + len(UNREADABLE), 20)
    letters = {letter["topic"]: letter for letter in site.dead_letters()}
    for topic, (payload, reason) in shots.items():
        assert letters[topic]["reason"].startswith(f"{reason}: "), letters[topic]["reason"][:200]
        assert letters[topic]["bytes"] == len(payload)
    for name, (_, reason) in UNREADABLE.items():
        assert letters[f"demo/e-{name}/7/1"]["reason"].startswith(f"{reason}: ")
        # the unreadable record became a gap, and the stream went on
        await eventually(lambda name=name: site.stored(f"demo/e-{name}")[0] == 1, 20)
        assert any(kind == "gap" and subject == f"demo/e-{name}" for kind, subject, _ in site.events())
    await eventually(lambda: site.stored("demo/e-unit")[0] == 2, 20)
    for _, value, quality in site.readings("d", "p", "demo/e-unit"):
        assert (math.isnan(value), quality) == (True, "bad/type")


async def _attack_the_cloud(site: SmallSite, client: aiomqtt.Client, eventually: Eventually) -> None:
    shots = {
        GatewayRoute("demo", f"gw-{name}").up("telemetry"): shot for name, shot in no_frames("demo/edge-1").items()
    }
    shots[GatewayRoute("demo", "gw-liar").alive] = (b'{"v":1}', "malformed")
    for topic, (payload, _) in shots.items():
        await client.publish(topic, payload)
    for name, (body, _) in UNREADABLE.items():
        topic = GatewayRoute("demo", "gw-odd").up("telemetry")
        await client.publish(topic, frame(f"demo/c-{name}", schema(), body, readings()))
    wanted = {topic: reason for topic, (_, reason) in shots.items()}
    wanted |= {f"demo/c-{name}": AT_THE_CLOUD.get(reason, reason) for name, (_, reason) in UNREADABLE.items()}
    wanted["demo/c-huge-index"] = wanted["demo/c-far-future"] = "overflow"
    wanted["demo/c-far-future"] = "point-index"
    await eventually(lambda: len([1 for kind, _, _ in site.events() if kind == "refused"]) >= len(wanted), 20)
    told = {subject: text for kind, subject, text in site.events() if kind == "refused"}
    for subject, reason in wanted.items():
        assert told[subject].startswith(f"{reason}: "), told[subject]
    for name in UNREADABLE:
        await eventually(lambda name=name: site.stored(f"demo/c-{name}")[0] == 1, 20)


# --- lying devices ---------------------------------------------------------------------------------------------------

LIES: dict[str, tuple[Callable[[bytes], bytes | None], set[str]]] = {
    "exception-1": (lambda reply: bytes([reply[0] | 0x80, 1]), {"bad/device"}),
    "exception-2": (lambda reply: bytes([reply[0] | 0x80, 2]), {"bad/address"}),
    "exception-3": (lambda reply: bytes([reply[0] | 0x80, 3]), {"bad/device"}),
    "exception-4": (lambda reply: bytes([reply[0] | 0x80, 4]), {"bad/device"}),
    "wrong-code": (lambda reply: bytes([reply[0] ^ 0x01]) + reply[1:], {"bad/reply"}),
    "short": (lambda reply: bytes([reply[0], 2]) + reply[2:4], {"bad/reply"}),
    "garbage": (lambda reply: b"\xee\xff\x00\x11", {"bad/reply"}),
    "silent": (lambda reply: None, {"bad/timeout", "bad/connection"}),
}


def _device(name: str, port: int, period: str) -> str:
    where = f"host: 127.0.0.1, port: {port}, timeout: 300 ms"
    return f"  - {{device: {name}, kind: modbus, profile: plc.yaml, period: {period}, {where}}}\n"


@pytest.mark.deadline(90)
async def test_what_a_device_gets_wrong_is_a_quality_and_never_a_value(
    tmp_path: Path, mosquitto: Broker, free_port: Callable[[], int], eventually: Eventually
) -> None:
    async with AsyncExitStack() as stack:
        stubs = {"plc": await stack.enter_async_context(serving(Stub(words=TRUE)))}
        stubs["far"] = await stack.enter_async_context(serving(Stub(words=TRUE | {0: 60_000})))
        for name, (lie, _) in LIES.items():
            stubs[name] = await stack.enter_async_context(serving(Stub(words=TRUE, lie=lie)))
        zone = await stack.enter_async_context(plant(free_port()))
        await zone.put("t", 21.5, datetime.now(UTC))
        devices = "".join(_device(name, stub.port, "200 ms") for name, stub in stubs.items())
        devices += f"  - {{device: zone, kind: opcua, profile: zone.yaml, url: '{zone.url}', interval: 50 ms}}\n"
        site = await stack.enter_async_context(
            small_site(tmp_path, mqtt_port=mosquitto.port, api_port=free_port(), devices=devices, eventually=eventually)
        )
        for name, (_, expected) in LIES.items():
            await eventually(lambda name=name: len(site.readings(name, "level")) >= 1, 20)
            for _, value, quality in site.readings(name, "level") + site.readings(name, "pump"):
                assert math.isnan(value), (name, value, quality)
                assert quality in expected, (name, quality)
        await eventually(lambda: site.qualities("far", "level")["bad/range"] >= 2, 20)
        assert all(math.isnan(value) for _, value, _ in site.readings("far", "level"))
        assert {value for _, value, _ in site.readings("far", "pump")} == {3.0}
        await _bad_nodes(site, zone, eventually)
        for point, true in {"level": 0.12, "pump": 3.0}.items():
            assert {(round(value, 9), quality) for _, value, quality in site.readings("plc", point)} == {(true, "good")}
        assert [await site.end(name) for name in ("edge", "gateway", "cloud")] == [0, 0, 0], site.log("edge")


async def _bad_nodes(site: SmallSite, zone: Any, eventually: Eventually) -> None:
    """A bad status takes the value away whatever it is; an uncertain one keeps it and says so."""
    await eventually(lambda: site.qualities("zone", "t")["good"] >= 1, 20)
    await zone.put("t", 99.0, datetime.now(UTC), ua.StatusCodes.BadSensorFailure)
    await eventually(lambda: site.qualities("zone", "t")["bad/device"] >= 1, 20)
    await zone.put("t", 22.5, datetime.now(UTC), ua.StatusCodes.UncertainSensorNotAccurate)
    await eventually(lambda: site.qualities("zone", "t")["uncertain/sensor"] >= 1, 20)
    stored = {(None if math.isnan(v) else round(v - 273.15, 6), q) for _, v, q in site.readings("zone", "t")}
    assert {(value, quality) for value, quality in stored if value is not None} == {
        (21.5, "good"),
        (22.5, "uncertain/sensor"),
    }


# --- the API and the command line ------------------------------------------------------------------------------------

SET = "/v1/twins/pump-1/setpoints"
ORDERS = {
    b"x" * 20_000: (413, "oversize"),
    b"\xff{": (400, "malformed"),
    b'{"actuator": "output", "value": ': (400, "malformed"),
    b'{"actuator": "output", "value": NaN}': (400, "value: Input should be a finite number"),
    b'{"actuator": "output", "value": 1e999}': (400, "value: Input should be a finite number"),
    b'{"actuator": "output", "value": true}': (400, "value: Input should be a valid number"),
    b'{"actuator": "output", "value": "3"}': (400, "value: Input should be a valid number"),
    b'{"actuator": "output", "value": 3, "deadline_s": true}': (400, "deadline_s: Input should be a valid number"),
    b'{"actuator": "output", "value": 3, "more": 1}': (400, "more: Extra inputs are not permitted"),
    b'{"value": 3}': (400, "actuator: Field required"),
    b'{"actuator": "valve", "value": 3}': (404, "pump-1 has no actuator 'valve' (it has: output)"),
}
QUESTIONS = {
    "/v1/nothing": (404, "no-such-route"),
    "/v1/twins/nobody/now": (404, "no twin 'nobody'"),
    "/v1/setpoints/nothing": (404, "unknown-setpoint"),
    f"/v1/setpoints/nothing?after={'9' * 5000}": (400, "after: a count of steps"),
    "/v1/setpoints/nothing?wait=1e300 s": (400, "longer than time stamps reach"),
    "/v1/twins/level-1/history?from=soon": (400, "'soon' is not a time, such as 10m"),
    f"/v1/twins/level-1/history?from={10**25}&to={10**25 + 1}": (400, "is not a time"),
    "/v1/twins/level-1/history?from=9999-12-31T00:00:00Z": (400, "does not lie between 1970 and 2262"),
    "/v1/twins/level-1/history?from=0": (422, "from must lie before to, by at most 7 d"),
    "/v1/twins/level-1/next?for=1e300 s": (400, "longer than time stamps reach"),
    "/v1/twins/level-1/next?for=-5m": (400, "'-5m' is not a duration, such as 90 s"),
    "/v1/twins/level-1/next?for=8d": (422, "at most 7 d"),
}
FILE = {"file": "a.yaml", "text": "twin: x\nof: signl\nwith: {unit: cm, noise: 1 cm}\nbind: {value: a/b/c/d}\n"}
COMMANDS: dict[tuple[str, ...], tuple[int, str]] = {
    ("now", "nobody"): (1, "unknown-twin: no twin 'nobody'"),
    ("set", "pump-1", "valve", "3"): (1, "unknown-actuator: pump-1 has no actuator 'valve' (it has: output)"),
    ("set", "pump-1", "output", "nan"): (1, "'nan' is not a number with a unit"),
    ("set", "pump-1", "output", "3", "--deadline", "1e308 d"): (1, "longer than time stamps reach"),
    ("list", "--api", "http://[::1"): (1, "address: 'http://[::1' is not one such as http://127.0.0.1:8080"),
    ("list", "--api", "http://127.0.0.1:1"): (1, "no answer from http://127.0.0.1:1"),
    ("list", "--token-file", "wrong"): (1, "unauthorised: a bearer token is needed"),
    ("list", "--token-file", "odd"): (2, "odd:1:1: a token is one line of ASCII characters (see `twin keys init`)"),
    ("list", "--token-file", "open"): (2, "open:1:1: mode 0644 lets others see this secret (chmod 600 open)"),
    ("list", "--token-file", "none"): (2, "none:1:1: there is no token"),
    ("apply", "nothing.yaml"): (2, "nothing.yaml:1:1: cannot be read: No such file or directory"),
    ("apply", "edge.yaml"): (2, "edge.yaml:1:1: `edge` is not registered"),
}


@pytest.mark.deadline(90)
async def test_what_a_client_gets_wrong_is_refused_with_its_reason(
    tmp_path: Path, mosquitto: Broker, free_port: Callable[[], int], eventually: Eventually
) -> None:
    for name, token in {"wrong": "a wrong token", "odd": "two\nlines", "open": "a wrong token"}.items():
        (tmp_path / name).write_text(token)
        (tmp_path / name).chmod(0o644 if name == "open" else 0o600)
    async with (
        serving(Stub(words=TRUE)) as stub,
        small_site(
            tmp_path,
            mqtt_port=mosquitto.port,
            api_port=free_port(),
            devices=_device("plc", stub.port, "200 ms"),
            eventually=eventually,
        ) as site,
    ):
        async with _http(site) as api:
            await _without_the_token(api)
            for body, (status, said) in ORDERS.items():
                _refused(await api.post(SET, content=body), status, said)
            for path, (status, said) in QUESTIONS.items():
                _refused(await api.get(path), status, said)
            _refused(await api.post("/v1/twins/nobody/setpoints", content=list(ORDERS)[-1]), 404, "unknown-twin")
            _refused(await api.post("/v1/apply", content=b"x" * (5 << 20)), 413, "oversize")
            _refused(await api.post("/v1/apply", json={"files": [FILE]}), 422, "a.yaml:2:5: no type is called signl")
            too_much = await api.post(SET, json={"actuator": "output", "value": 30})
            assert (too_much.json()["state"], too_much.json()["reason"]) == ("rejected", "range")
        for words, (code, said) in COMMANDS.items():
            done = await asyncio.to_thread(site.twin, *words)
            assert (done.returncode, done.stderr.count("\n")) == (code, 1), (words, done.stderr)
            assert said in done.stderr, (words, done.stderr)
        done = await asyncio.to_thread(site.twin, "set", "pump-1", "output", "30")
        assert (done.returncode, done.stderr) == (1, "")
        assert "rejected (range)" in done.stdout
        assert stub.writes == []
        assert site.all_alive()
        assert "Traceback" not in site.log("cloud")


async def _without_the_token(api: httpx.AsyncClient) -> None:
    right = api.headers.pop("authorization")
    for given in ({}, {"authorization": "Bearer wrong"}, {"authorization": right.replace("Bearer", "Basic")}):
        for path in ("/v1/twins", "/v1/nothing"):
            answer = await api.get(path, headers=given)
            _refused(answer, 401, "unauthorised")
            assert answer.headers["www-authenticate"] == "Bearer"
    api.headers["authorization"] = right


def _refused(answer: httpx.Response, status: int, said: str) -> None:
    assert answer.status_code == status, answer.text
    assert set(answer.json()) >= {"error", "detail"}
    assert said in answer.json()["error"] + ": " + answer.json()["detail"], answer.text


def _http(site: SmallSite) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=site.api, headers={"authorization": f"Bearer {site.token}"}, timeout=10)
