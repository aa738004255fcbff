"""(being filled) The MQTT link."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from wire.runtime.inbox import Inbox
from wire.settings import LocalPath, Settings


class TlsConfig(Settings):
    ca_file: LocalPath
    cert_file: LocalPath | None = None
    key_file: LocalPath | None = None


class MqttConfig(Settings):
    kind: Literal["mqtt"] = "mqtt"
    host: str = "127.0.0.1"
    port: int = Field(1883, ge=1, le=65535)
    protocol: Literal["5", "3.1.1"] = "5"
    username: str | None = None
    password_file: LocalPath | None = None
    tls: TlsConfig | None = None
    keepalive_s: int = Field(5, ge=1, le=600)


class MqttLink:
    """One connection to an MQTT broker."""

    def __init__(self, config: MqttConfig, client_id: str, will: tuple[str, bytes] | None = None) -> None: ...

    async def run(self) -> None: ...

    async def publish(self, topic: str, payload: bytes, *, qos: int = 0, retain: bool = False) -> None: ...

    def subscribe(self, topic_filter: str, *, qos: int = 0, capacity: int = 1024) -> Inbox: ...

    async def connected(self, after: int = 0) -> int: ...
