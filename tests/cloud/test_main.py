"""``twin-cloud`` as a process: exit codes, a clean stop, kill -9 and what is left afterwards."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from cloud.cli.keys import init
from cloud.main import main
from tests.cloud.site import ROUTE, SOURCE, START, point, readings, schema
from wire.runtime.mqtt import MqttConfig, MqttLink
from wire.runtime.outbox import Outbox
from wire.runtime.uplink import Uplink
from wire.units import parse_unit

ROOT = Path(__file__).parents[2]

TWIN = f"""\
twin: level-1
of: signal
with: {{unit: V, noise: 0.1 V}}
bind: {{value: {point("s0")}}}
"""


def config_of(folder: Path, mqtt_port: int, api_port: int) -> Path:
    path = folder / "cloud.yaml"
    path.write_text(
        f"cloud: demo\nstate: {folder}/state\nlink: {{kind: mqtt, host: 127.0.0.1, port: {mqtt_port}}}\n"
        f"keys: {folder}/keys\napi: {{host: 127.0.0.1, port: {api_port}, token_file: {folder}/keys/token}}\n"
    )
    return path


@pytest.fixture(autouse=True)
def own_logging() -> Iterator[None]:
    """``main`` sets up the process's logging; what pytest had comes back afterwards."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    yield
    root.handlers[:] = before
    root.setLevel(level)


def test_a_wrong_file_is_explained_before_anything_opens(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = config_of(tmp_path, 1883, 8080)
    path.write_text(path.read_text().replace("keys:", "kyes:") + "history: {kind: papyrus}\n")
    assert main([str(path)]) == 2
    told = capsys.readouterr().err
    assert "unknown key `kyes`" in told
    assert "did you mean `keys`" in told
    assert "papyrus" in told
    assert not (tmp_path / "state").exists()


def test_keys_are_looked_at_before_anything_opens(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = config_of(tmp_path, 1883, 8080)
    assert main([str(path), "--check"]) == 2
    assert "cloud.key" in capsys.readouterr().err
    init(tmp_path / "keys", ["*/*/*/*"])
    assert main([str(path), "--check"]) == 0
    (tmp_path / "keys" / "token").chmod(0o644)
    assert main([str(path), "--check"]) == 2
    assert "chmod 600" in capsys.readouterr().err
    (tmp_path / "keys" / "token").chmod(0o600)
    (tmp_path / "keys" / "token").write_text("short\n")
    assert main([str(path), "--check"]) == 2
    (tmp_path / "keys" / "cloud.key").write_text("not a key")
    assert main([str(path), "--check"]) == 2
    assert not (tmp_path / "state").exists()


@contextmanager
def process(path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A cloud of its own; whatever happens, it is gone afterwards."""
    arguments = [sys.executable, "-c", "import sys; from cloud.main import main; sys.exit(main())", str(path)]
    with subprocess.Popen(arguments, cwd=ROOT, env={**os.environ, "PYTHONWARNINGS": "error"}) as running:
        try:
            yield running
        finally:
            running.kill()


async def test_killed_and_started_again_it_goes_on_where_it_was(
    tmp_path: Path, mosquitto: Any, free_port: Callable[[], int], eventually: Any
) -> None:
    """The real process on a real broker, fed by the real outbox: nothing lost, nothing twice, a clean stop in time."""
    api = free_port()
    path = config_of(tmp_path, mosquitto.port, api)
    init(tmp_path / "keys", ["*/*/*/*"])
    headers = {"Authorization": f"Bearer {(tmp_path / 'keys' / 'token').read_text().strip()}"}
    link = MqttLink(MqttConfig(host="127.0.0.1", port=mosquitto.port), "site")
    async with (
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{api}", headers=headers) as client,
        Outbox(tmp_path / "outbox.db", source=SOURCE) as outbox,
        asyncio.TaskGroup() as tasks,
    ):
        uplink = Uplink(outbox, link, up_topic=ROUTE.up, ack_topic=ROUTE.ack)
        sending = [tasks.create_task(link.run()), tasks.create_task(uplink.run())]

        async def stats() -> Any:
            try:
                return (await client.get("/v1/stats")).json()
            except httpx.HTTPError:
                return {}

        async def applied(count: int) -> bool:
            return bool((await stats()).get("readings_applied") == count)

        with process(path) as cloud:
            await eventually(lambda: applied(0), seconds=20)
            answer = await client.post("/v1/apply", json={"files": [{"file": "t.yaml", "text": TWIN}]})
            assert answer.status_code == 200, answer.text
            await outbox.declare(schema(unit=parse_unit("V").si))
            for second in range(20):
                await outbox.append("telemetry", readings([("s0", second, 5.0, 0)], lag=1.0), 1)
            await eventually(lambda: applied(20), seconds=20)
            cloud.send_signal(signal.SIGKILL)
        for second in range(20, 30):
            await outbox.append("telemetry", readings([("s0", second, 5.0, 0)], lag=1.0), 1)
        with process(path) as cloud:
            await eventually(lambda: applied(30), seconds=20)
            counted = await stats()
            assert (counted["duplicates"], counted["outcomes"]["fused"]) == (0, 30)
            assert counted["twins"]["level-1"]["updates"] == 29, "the first reading starts the twin"
            history = await client.get("/v1/twins/level-1/history", params={"from": START - 1, "to": START + 10**12})
            assert history.status_code == 200, history.text
            cloud.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(cloud.wait, 3) == 0
        for task in sending:
            task.cancel()
