"""What only a real network can do to the MQTT link: black holes, half-open connections, certificates, passwords."""

from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
import socket
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiomqtt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from wire.errors import ConfigError
from wire.runtime.cancellation import remembered
from wire.runtime.mqtt import MqttConfig, MqttLink, TlsConfig


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Listen and never answer."""
    while await reader.read(1 << 16):
        pass
    writer.close()


class Proxy:
    """Forwards to a broker until it turns into a black hole: connections stay open and nothing passes."""

    def __init__(self, port: int) -> None:
        self.port = 0
        self.black = asyncio.Event()
        self._target = port

    async def run(self) -> None:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        async with server:
            await server.serve_forever()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.black.is_set():
            return await silent(reader, writer)
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._target)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._pump(reader, up_writer))
                tasks.create_task(self._pump(up_reader, writer))
        finally:
            up_writer.close()
            writer.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            if not self.black.is_set():
                writer.write(data)
        writer.close()


async def test_a_black_hole_is_noticed_and_left_behind(
    mosquitto: Any, eventually: Callable[..., Awaitable[None]]
) -> None:
    proxy = Proxy(mosquitto.port)
    async with asyncio.TaskGroup() as tasks:
        serving = tasks.create_task(proxy.run())
        await eventually(lambda: proxy.port)
        link = MqttLink(MqttConfig(port=proxy.port, keepalive_s=1), "half-open")
        inbox = link.subscribe("t")
        running = tasks.create_task(link.run())
        session = await link.connected()
        proxy.black.set()
        began = time.monotonic()
        await eventually(lambda: link._client is None, 8)
        assert time.monotonic() - began < 5.0
        proxy.black.clear()
        async with asyncio.timeout(8):
            assert await link.connected(session) == session + 1
        await link.publish("t", b"alive")
        assert (await anext(inbox)).payload == b"alive"
        running.cancel()
        serving.cancel()


async def test_a_broker_that_never_answers_does_not_hold_up_the_end(free_port: Callable[[], int]) -> None:
    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    async with server:
        link = MqttLink(MqttConfig(port=server.sockets[0].getsockname()[1]), "patient")
        task = asyncio.create_task(link.run())
        await asyncio.sleep(0.2)
        began = time.monotonic()
        task.cancel()
        await asyncio.wait([task])
        assert time.monotonic() - began < 1.5
    assert task.cancelled()


@pytest.fixture
def secured(tmp_path: Path, server_program: Callable[[str], str], free_port: Callable[[], int]) -> Iterator[MqttConfig]:
    """A broker that wants TLS and a password."""
    port, key = free_port(), ec.generate_private_key(ec.SECP256R1())
    name, now = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "broker")]), dt.datetime.now(dt.UTC)
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now).not_valid_after(now + dt.timedelta(days=1))
    builder = builder.add_extension(names, critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    certificate = builder.sign(key, hashes.SHA256())
    pem, passwords, secret = tmp_path / "cert.pem", tmp_path / "passwords", tmp_path / "secret"
    pem.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (tmp_path / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    secret.write_text("open sesame\n")
    secret.chmod(0o600)
    subprocess.run([server_program("mosquitto_passwd"), "-b", "-c", str(passwords), "ali", "open sesame"], check=True)
    settings = tmp_path / "secured.conf"
    settings.write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous false\npassword_file {passwords}\ncertfile {pem}\n"
        f"keyfile {tmp_path / 'key.pem'}\nuser root\nlog_type error\n"
    )
    broker = subprocess.Popen([server_program("mosquitto"), "-c", str(settings)], stderr=subprocess.DEVNULL)
    for _ in range(200):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.02)
    yield MqttConfig(port=port, username="ali", password_file=str(secret), tls=TlsConfig(ca_file=str(pem)))
    broker.terminate()
    broker.wait()


async def test_speaks_tls_and_gives_its_password(secured: MqttConfig) -> None:
    link = MqttLink(secured, "ali")
    inbox = link.subscribe("cave")
    task = asyncio.create_task(link.run())
    async with asyncio.timeout(10):
        await link.connected()
        await link.publish("cave", b"gold" * 100_000)
        assert len((await anext(inbox)).payload) == 400_000
    task.cancel()
    await asyncio.wait([task])


async def test_keeps_trying_with_a_wrong_password_and_says_so_once(
    secured: MqttConfig, caplog: pytest.LogCaptureFixture
) -> None:
    assert secured.password_file is not None
    Path(secured.password_file).write_text("guess")
    task = asyncio.create_task(MqttLink(secured, "thief").run())
    await asyncio.sleep(1.5)
    assert not task.done()
    task.cancel()
    await asyncio.wait([task])
    assert [each.message for each in caplog.records if "lost" in each.message and "authorized" in each.message.lower()]
    assert len(caplog.records) == 1
    assert "guess" not in caplog.text


async def test_a_cancellation_is_not_lost_whenever_it_comes(secured: MqttConfig) -> None:
    assert secured.password_file is not None
    Path(secured.password_file).write_text("guess")
    for number in range(60):
        task = asyncio.create_task(MqttLink(secured, f"thief-{number}").run())
        await asyncio.sleep(0.002 * number)
        task.cancel()
        done, _ = await asyncio.wait([task], timeout=5)
        assert done
        assert task.cancelled()


async def test_a_cancellation_that_the_library_swallows_is_raised_again() -> None:
    async def forgetful() -> str:
        with remembered(), suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        return "an answer that came at the same moment"

    task = asyncio.create_task(forgetful())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


async def test_certificates_or_passwords_that_cannot_be_used_are_configuration_errors(
    tmp_path: Path, secured: MqttConfig
) -> None:
    assert secured.password_file is not None
    (tmp_path / "junk.pem").write_text("junk")
    for tls in (TlsConfig(ca_file=str(tmp_path / "none.pem")), TlsConfig(ca_file=str(tmp_path / "junk.pem"))):
        with pytest.raises(ConfigError):
            await MqttLink(secured.model_copy(update={"tls": tls}), "x").run()
    Path(secured.password_file).chmod(0o644)
    with pytest.raises(ConfigError):
        await MqttLink(secured, "x").run()


@pytest.mark.parametrize("step", ["__aenter__", "subscribe"])
async def test_a_cancellation_that_the_library_forgets_is_remembered(
    mosquitto: Any, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """``asyncio.wait_for`` of Python 3.11 drops a cancellation that comes with the answer; made certain here."""
    real = getattr(aiomqtt.Client, step)
    reached = asyncio.Event()

    async def forgetful(*arguments: object) -> object:
        with suppress(asyncio.CancelledError):
            reached.set()
            await asyncio.sleep(30)
        return await real(*arguments)

    monkeypatch.setattr(aiomqtt.Client, step, forgetful)
    link = MqttLink(MqttConfig(kind="mqtt", host="127.0.0.1", port=mosquitto.port), "forgetful")
    link.subscribe("a/b")
    task = asyncio.create_task(link.run())
    await reached.wait()
    task.cancel()
    done, _ = await asyncio.wait([task], timeout=10)
    assert done, "the link goes on as if nobody had stopped it"
    assert task.cancelled()
