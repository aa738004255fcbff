"""What a config may say of each history store; the module of the same ``kind`` opens it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from wire.settings import Duration, LocalPath, Settings


class MemoryConfig(Settings):
    """Forgets everything when the process ends."""

    kind: Literal["memory"]


class SqliteConfig(Settings):
    """One file, ``history.db`` in the cloud's state folder."""

    kind: Literal["sqlite"]


class InfluxConfig(Settings):
    """An InfluxDB server. On 1.8 ``bucket`` is ``database/policy`` or just the database, and the token is
    ``user:password``; on 2.x and 3.x reads need the bucket mapped to a database of the same name."""

    kind: Literal["influx"]
    url: Annotated[str, Field(pattern=r"^https?://[^\s/]+(/\S*)?$")]
    bucket: Annotated[str, Field(min_length=1)]
    org: str = ""
    token_file: LocalPath | None = None
    timeout: Duration = 5.0


HistoryConfig = Annotated[MemoryConfig | SqliteConfig | InfluxConfig, Field(discriminator="kind")]
