"""``twin`` as people and programs use it: against a real server, and alone."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from cloud.api.app import Cloud, create_app
from cloud.api.server import serve
from cloud.cli.main import run
from cloud.history.memory import MemoryHistory
from tests.small_cloud import TWIN, TYPE, SmallCloud, small_cloud
from wire import settings
from wire.messages import State
from wire.runtime.files import read_secret
from wire.signing import TrustFile, key_from_pem, key_id

CONFIGS = Path(__file__).parents[3] / "configs"


class Twin:
    """The command line with its server's address already said."""

    def __init__(self, port: int, token: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self._options = ["--api", f"http://127.0.0.1:{port}", "--token-file", str(token)]
        self._capsys = capsys

    async def __call__(self, *arguments: str) -> tuple[int, str, str]:
        code = await asyncio.to_thread(run, [*arguments, *self._options])
        out, err = self._capsys.readouterr()
        return code, out, err


@asynccontextmanager
async def serving(
    folder: Path, port: int, capsys: pytest.CaptureFixture[str]
) -> AsyncIterator[tuple[Twin, SmallCloud]]:
    token = folder / "token"
    token.write_text("a long enough token\n")
    token.chmod(0o600)
    async with small_cloud(folder) as cloud, MemoryHistory() as history:
        app = create_app(Cloud(cloud.registry, cloud.live, history, cloud.commands, cloud.clock), "a long enough token")
        server = asyncio.create_task(serve(app, "127.0.0.1", port))
        try:
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.close()
                    await writer.wait_closed()
                    break
                except ConnectionRefusedError:
                    await asyncio.sleep(0.02)
            yield Twin(port, token, capsys), cloud
        finally:
            server.cancel()
            await asyncio.gather(server, return_exceptions=True)


async def test_every_question_has_an_answer_for_people_and_for_programs(
    tmp_path: Path, free_port: Callable[[], int], capsys: pytest.CaptureFixture[str]
) -> None:
    async with serving(tmp_path, free_port(), capsys) as (twin, _):
        for words, expected in {
            ("list",): "small-tank 1.0.0",
            ("show", "tank-1"): "demo/edge-tank/tank",
            ("now", "tank-1"): "10.3",
            ("next", "tank-1", "--for", "10m"): "h [cm]",
            ("history", "tank-1", "--from", "10m", "--to", "now"): "time",
        }.items():
            code, out, err = await twin(*words)
            assert (code, err) == (0, "")
            assert expected in out
            code, out, _ = await twin(*words, "--json")
            assert code == 0
            assert json.loads(out)


async def test_set_tells_the_story_and_its_exit_code_is_the_proof(
    tmp_path: Path, free_port: Callable[[], int], capsys: pytest.CaptureFixture[str]
) -> None:
    async with serving(tmp_path, free_port(), capsys) as (twin, cloud):
        code, out, _ = await twin("set", "tank-1", "pump", "4.5")
        assert code == 0
        words = ["requested", "sent", "accepted", "verified"]
        assert [word for line in out.splitlines() for word in words if f"  {word}" in line][:4] == words
        code, out, _ = await twin("set", "tank-1", "pump", "4200 mV", "--json")
        assert (code, json.loads(out)["state"]) == (0, "verified")
        assert [write.value for write in cloud.edge.writes] == [4500.0, 4200.0]
        code, out, _ = await twin("set", "tank-1", "pump", "-1")
        assert code == 1
        assert "rejected" in out
        assert "range" in out
        cloud.edge.states, cloud.edge.reason = [State.ACCEPTED, State.MISMATCH], "readback"
        code, out, _ = await twin("set", "tank-1", "pump", "5", "--json")
        assert (code, json.loads(out)["state"]) == (1, "mismatch")


async def test_set_outlives_a_restart_of_the_cloud(
    tmp_path: Path, free_port: Callable[[], int], capsys: pytest.CaptureFixture[str]
) -> None:
    port = free_port()
    async with serving(tmp_path, port, capsys) as (twin, cloud):
        cloud.edge.silent = True
        asking = asyncio.create_task(twin("set", "tank-1", "pump", "4.5", "--deadline", "60s"))
        while not cloud.edge.received:
            await asyncio.sleep(0.02)
    await asyncio.sleep(0.5)
    async with serving(tmp_path, port, capsys) as (_, cloud):
        cloud.field.nonce = "boot-1"
        code, out, err = await asking
        assert (code, err) == (0, "")
        assert "verified" in out
        assert [write.value for write in cloud.edge.writes] == [4500.0]


async def test_refusals_are_readable_and_have_exit_codes(
    tmp_path: Path, free_port: Callable[[], int], capsys: pytest.CaptureFixture[str]
) -> None:
    port = free_port()
    async with serving(tmp_path, port, capsys) as (twin, _):
        assert await twin("now", "nobody") == (1, "", "unknown-twin: no twin 'nobody'\n")
        code, _, err = await twin("set", "tank-1", "valve", "4")
        assert code == 1
        assert "it has: pump" in err
        for strange in ("..", "a/b", "caf\u00e9?x=1"):
            code, _, err = await twin("now", strange)
            assert (code, "Traceback" in err) == (1, False)
        code, _, err = await twin("set", "tank-1", "pump", "4", "--deadline", "2h")
        assert code == 1
        assert "deadline_s" in err
        code, _, err = await twin("set", "tank-1", "pump", "much")
        assert code == 1
        assert "not a number" in err
        code, _, err = await twin("history", "tank-1", "--from", "whenever")
        assert code == 1
        assert "whenever" in err
        (tmp_path / "other").write_text("another token, quite wrong")
        (tmp_path / "other").chmod(0o600)
        code, _, err = await Twin(port, tmp_path / "other", capsys)("list")
        assert code == 1
        assert "unauthorised" in err
        (tmp_path / "other").chmod(0o644)
        code, _, err = await Twin(port, tmp_path / "other", capsys)("list")
        assert code == 2
        assert "chmod 600" in err
    code, _, err = await twin("list")
    assert code == 1
    assert "no answer from" in err


async def test_apply_registers_or_names_every_problem(
    tmp_path: Path, free_port: Callable[[], int], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "type.yaml").write_text(TYPE.replace("0.3 cm", "0.4 cm"))
    (folder / "twin.yaml").write_text(TWIN)
    async with serving(tmp_path, free_port(), capsys) as (twin, _):
        code, out, _ = await twin("apply", str(folder))
        assert code == 0
        assert "changed" in out
        assert "unchanged" in out
        (folder / "type.yaml").write_text(TYPE.replace("noise: 0.3 cm", "noise: 0 cm").replace("hold: 30 s", ""))
        code, _, err = await twin("apply", str(folder))
        assert code == 2
        assert f"{folder}/type.yaml:" in err
        assert err.count("\n") == 1
        assert (await twin("apply", str(tmp_path / "nothing.yaml")))[0] == 2


def test_keys_are_private_fitting_and_never_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "keys"
    assert run(["keys", "init", str(folder)]) == 0
    modes = {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}
    assert (modes["cloud.key"], modes["token"], folder.stat().st_mode & 0o777) == (0o600, 0o600, 0o700)
    key = key_from_pem(read_secret(folder / "cloud.key"))
    assert len(read_secret(folder / "token")) >= 32
    trust = settings.parse_one((folder / "trust.yaml").read_text(), "trust.yaml").load(TrustFile)
    assert [item.kid for item in trust.keys] == [key_id(key)]
    before = (folder / "cloud.key").read_bytes()
    capsys.readouterr()
    assert run(["keys", "init", str(folder)]) == 2
    assert "never overwritten" in capsys.readouterr().err
    assert (folder / "cloud.key").read_bytes() == before
    assert run(["keys", "init", str(tmp_path / "other"), "--point", "not a point"]) == 2
    assert not (tmp_path / "other").exists()


def test_check_knows_every_kind_of_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["keys", "init", str(tmp_path / "keys")])
    paths = [str(CONFIGS / name) for name in ("types", "twins", "profiles")]
    capsys.readouterr()
    assert run(["check", *paths, str(tmp_path / "keys" / "trust.yaml"), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert {item["kind"] for item in report["documents"]} == {"type", "twin", "profile", "trust"}
    assert all(item["ok"] for item in report["documents"])


def test_check_names_every_problem_at_its_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.yaml").write_text(TYPE.replace("noise: 0.3 cm", "noise: 0.3 V"))
    (tmp_path / "b.yaml").write_text("edgy: edge-1\n---\nedge: ${NOWHERE_SET}\n")
    (tmp_path / "c.yaml").write_text(f"{TYPE}---\n{TWIN.replace('mode: act', 'mood: act')}")
    (tmp_path / "d.yaml").write_text("type: [unclosed\n")
    assert run(["check", str(tmp_path)]) == 2
    out, err = capsys.readouterr()
    assert "good" in out
    assert len(err.splitlines()) >= 4
    for name in "abcd":
        assert f"{tmp_path}/{name}.yaml:" in err
    assert "did you mean `mode`?" in err


def test_wrong_usage_is_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["now"]) == 2
    assert run(["nonsense"]) == 2
    assert run(["set", "tank-1", "pump"]) == 2
    assert "Usage" in capsys.readouterr().err


def test_help_reads_like_a_table_of_contents() -> None:
    """As a process of its own, with the name it has when installed."""
    code = "import sys; sys.argv = ['twin', '--help']; from cloud.cli.main import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=CONFIGS.parent)
    for word in ("keys", "apply", "list", "show", "now", "history", "set", "next", "watch", "check"):
        assert f"\n  {word} " in done.stdout, word
    heavy = ("numpy", "sympy", "pint", "starlette")
    code = f"import sys; from cloud.cli.main import app; print(*(name for name in {heavy} if name in sys.modules))"
    light = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=CONFIGS.parent)
    assert light.stdout.split() == []


async def test_watch_shows_twins_until_interrupted(
    tmp_path: Path,
    free_port: Callable[[], int],
    capsys: pytest.CaptureFixture[str],
    eventually: Callable[..., Awaitable[None]],
) -> None:
    port = free_port()
    async with serving(tmp_path, port, capsys):
        code = "import sys; from cloud.cli.main import main; main()"
        watching = await asyncio.create_subprocess_exec(
            sys.executable, "-c", code, "watch", "--every", "0.3",
            env=os.environ | {"TWINLINE_API": f"http://127.0.0.1:{port}", "TWINLINE_TOKEN_FILE": f"{tmp_path}/token"},
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, cwd=CONFIGS.parent,
            # a test run in the background of a shell inherits Ctrl-C as ignored
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip
        await asyncio.sleep(3)
        watching.send_signal(2)
        out, err = await watching.communicate()
        assert watching.returncode == 0, err
        assert b"Traceback" not in err
        assert b"tank-1" in out
