"""The MQTT link: MQTT 5 or 3.1.1 over TCP or TLS, always a clean session, reconnecting for ever.

The only file that knows the client library. Topics and payloads carry everything; no MQTT 5 property is relied on.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import threading
from contextlib import suppress
from typing import Annotated, Any, Literal, Self

import aiomqtt
from pydantic import BeforeValidator, Field

from wire.errors import ConfigError, Unavailable
from wire.runtime.blocking import finish
from wire.runtime.cancellation import remembered
from wire.runtime.files import read_secret
from wire.runtime.inbox import Inbox
from wire.runtime.link import Delivery
from wire.runtime.service import backoff
from wire.settings import LocalPath, Settings

log = logging.getLogger("twinline.mqtt")

CONNECT_TIMEOUT_S = 1.0
"""Longer than any LAN or sound WAN needs, short enough to notice a black hole."""
ANSWER_TIMEOUT_S = 3.0
RETRY_CAP_S = 0.1
"""A refused attempt costs a millisecond; several links must be back before a reading gets through."""
DRAIN_POLL_S = 0.005
FIRST_REFUSAL = 128
INCOMING = 4096
"""Messages that may wait between the library and the inboxes; it drops newer ones and says so."""
NO_DELAY = (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
"""Without it Nagle's algorithm and delayed acks cost up to 40 ms a message."""


class TlsConfig(Settings):
    """Certificates in PEM files; the broker's name is always checked."""

    ca_file: LocalPath
    cert_file: LocalPath | None = None
    key_file: LocalPath | None = None


def _as_text(version: object) -> object:
    """``protocol: 5`` means "5": YAML reads it as a number, and so does a variable that holds nothing else."""
    return "5" if version == 5 and type(version) is int else version


class MqttConfig(Settings):
    """How to reach a broker. ``password_file`` must be readable by its owner only."""

    kind: Literal["mqtt"] = "mqtt"
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535)] = 1883
    protocol: Annotated[Literal["5", "3.1.1"], BeforeValidator(_as_text)] = "5"
    username: str | None = None
    password_file: LocalPath | None = None
    tls: TlsConfig | None = None
    keepalive_s: Annotated[int, Field(ge=1, le=600)] = 5


class MqttLink:
    """One connection; ``will`` (topic, payload) is published retained by the broker if it breaks."""

    def __init__(self, config: MqttConfig, client_id: str, will: tuple[str, bytes] | None = None) -> None:
        self._config = config
        self._client_id = client_id
        self._will = will
        self._inboxes: list[Inbox] = []
        self._client: _Client | None = None
        self._session = 0
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Keep the connection up; raises ConfigError for certificate or password files that cannot be used."""
        tls = None if self._config.tls is None else await asyncio.to_thread(_tls_context, self._config.tls)
        password = self._config.password_file and read_secret(self._config.password_file).decode()
        where, away = f"{self._config.host}:{self._config.port}", False
        pauses = backoff(RETRY_CAP_S)
        while True:
            before = self._session
            try:
                with remembered():
                    await self._hold(self._new_client(tls, password))
            except* aiomqtt.MqttError as group:
                if self._session > before:
                    pauses, away = backoff(RETRY_CAP_S), False
                if not away:
                    log.warning("broker %s lost: %s", where, _first(group))
                away = True
            if (task := asyncio.current_task()) is not None and task.cancelling():
                # leaving a session whose broker has just gone raised its own error in place of the cancellation
                raise asyncio.CancelledError
            await asyncio.sleep(next(pauses))

    async def publish(self, topic: str, payload: bytes, *, qos: int = 0, retain: bool = False) -> None:
        client = self._client
        if client is None:
            raise Unavailable("no connection to the broker")
        try:
            with remembered():
                await client.drained()
                await client.publish(topic, payload, qos=qos, retain=retain)
        except aiomqtt.MqttError as error:
            raise Unavailable(f"broker: {error}") from None

    def subscribe(self, topic_filter: str, *, qos: int = 0, capacity: int = 1024) -> Inbox:
        inbox = Inbox(topic_filter, qos, capacity)
        self._inboxes.append(inbox)
        self._notify()
        return inbox

    async def connected(self, after: int = 0) -> int:
        while self._client is None or self._session <= after:
            await self._next_change()
        return self._session

    async def _hold(self, client: _Client) -> None:
        """One session, from connecting to its loss."""
        try:
            async with client:
                subscribed = await self._subscribe_from(client, 0)
                self._client = client
                self._session += 1
                self._notify()
                log.info("broker %s:%d connected, session %d", self._config.host, self._config.port, self._session)
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._follow_subscriptions(client, subscribed), name="mqtt/subscriptions")
                    # in the body, so that the loss of the session never counts as a cancellation of this task
                    await self._dispatch(client)
        finally:
            self._client = None
            await client.released()

    async def _follow_subscriptions(self, client: _Client, done: int) -> None:
        while True:
            done = await self._subscribe_from(client, done)
            if done == len(self._inboxes):
                await self._next_change()

    async def _subscribe_from(self, client: _Client, start: int) -> int:
        """Tell the broker about the inboxes from ``start`` on; returns how many it knows then."""
        new = self._inboxes[start:]
        if new:
            with remembered():
                answers = await client.subscribe([(inbox.topic_filter, inbox.qos) for inbox in new])
            for inbox, answer in zip(new, answers, strict=True):
                if _code(answer) >= FIRST_REFUSAL:
                    log.error("the broker refuses the subscription %s: %s", inbox.topic_filter, answer)
        return start + len(new)

    async def _dispatch(self, client: _Client) -> None:
        async for message in client.messages:
            delivery = Delivery(message.topic.value, _bytes(message.payload), message.retain)
            for inbox in self._inboxes:
                inbox.offer(delivery)

    def _new_client(self, tls: ssl.SSLContext | None, password: str | None) -> _Client:
        newest = self._config.protocol == "5"
        client = _Client(
            self._config.host,
            self._config.port,
            username=self._config.username,
            password=password,
            identifier=self._client_id,
            protocol=aiomqtt.ProtocolVersion.V5 if newest else aiomqtt.ProtocolVersion.V311,
            clean_session=None if newest else True,
            will=None if self._will is None else aiomqtt.Will(*self._will, qos=1, retain=True),
            timeout=ANSWER_TIMEOUT_S,
            keepalive=self._config.keepalive_s,
            max_queued_incoming_messages=INCOMING,
            tls_context=tls,
            socket_options=[NO_DELAY],
        )
        client.pending_calls_threshold = INCOMING
        return client

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _next_change(self) -> None:
        await self._changed.wait()


class _Client(aiomqtt.Client):
    """The library's client with three things it lacks: a short limit for connecting, back-pressure from the socket,
    and an end that leaves neither thread nor task nor socket behind, however early it comes."""

    def _client_connect(self) -> None:
        self._connecting = threading.Event()
        self._client.connect_timeout = CONNECT_TIMEOUT_S
        try:
            super()._client_connect()
        finally:
            self._connecting.set()

    async def __aenter__(self) -> Self:
        with remembered():
            return await super().__aenter__()

    async def __aexit__(self, *exc: Any) -> None:
        # a farewell that fails must not take the place of the cancellation that is on its way
        with suppress(aiomqtt.MqttError):
            await super().__aexit__(*exc)

    async def drained(self) -> None:
        """Wait until the socket has taken what was published before."""
        until = self._loop.time() + self.timeout
        while self._client.want_write():
            if self._loop.time() > until:
                raise aiomqtt.MqttError("the broker takes nothing more")
            await asyncio.sleep(DRAIN_POLL_S)

    async def released(self) -> None:
        """Close whatever connecting has opened or may still open."""
        connecting = getattr(self, "_connecting", None)
        if connecting is not None:
            await finish(connecting.wait)
            await asyncio.sleep(0)
        if self._client.socket() is not None:
            self._client._sock_close()  # noqa: SLF001  a farewell would wait for a peer that may be gone
        if self._misc_task is not None:
            self._misc_task.cancel()
            await asyncio.wait([self._misc_task])


def _tls_context(config: TlsConfig) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=config.ca_file)
        if config.cert_file is not None:
            context.load_cert_chain(config.cert_file, config.key_file)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError.at(config.ca_file, f"the certificates cannot be used: {error}") from None
    return context


def _first(group: BaseExceptionGroup[aiomqtt.MqttError]) -> BaseException:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first


def _code(answer: object) -> int:
    """A reason code, which the library gives as an object or as the number itself."""
    code = getattr(answer, "value", answer)
    return code if isinstance(code, int) else FIRST_REFUSAL


def _bytes(payload: object) -> bytes:
    return payload if isinstance(payload, bytes) else str(payload or "").encode()
