"""The cloud's configuration file (first key ``cloud:``)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from cloud.control.level import LevelConfig
from cloud.history.config import HistoryConfig, SqliteConfig
from wire.points import Name
from wire.runtime.mqtt import MqttConfig
from wire.settings import LocalPath, Settings


class CheckpointConfig(Settings):
    """``sqlite``: one file, ``checkpoint.db`` in the state folder. ``memory``: every start begins from nothing."""

    kind: Literal["sqlite", "memory"]


class ApiConfig(Settings):
    """Where the HTTP API listens. Beyond loopback it needs TLS in front of it: the token travels in every request."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535)]
    token_file: LocalPath


class CloudConfig(Settings):
    """One cloud: the worker, the setpoint ledger, the registry and the API in one process."""

    cloud: Name
    state: LocalPath
    """Folder of the databases: history, checkpoint, ledger, registry."""
    link: MqttConfig
    history: HistoryConfig = SqliteConfig(kind="sqlite")
    checkpoint: CheckpointConfig = CheckpointConfig(kind="sqlite")
    api: ApiConfig
    keys: LocalPath
    """Folder that ``twin keys init`` made: the signing key is in it."""
    control: tuple[LevelConfig, ...] = ()
    """Controllers; each acts only on a twin in mode ``act``."""

    @field_validator("control")
    @classmethod
    def _unique(cls, control: tuple[LevelConfig, ...]) -> tuple[LevelConfig, ...]:
        names = [item.control for item in control]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"declared twice: {', '.join(twice)}")
        return control
