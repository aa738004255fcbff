"""The highest (term, revision) accepted for every writable point, on disk before anything is written to a device."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from pydantic import TypeAdapter, ValidationError

from edge.guard import Key
from wire.messages import PointRevision

_FILE = TypeAdapter(list[PointRevision])


class Revisions:
    """A small file, replaced whole. A damaged one is set aside: the boot nonce still stops every old setpoint."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._held: dict[Key, PointRevision] = {}
        self.damaged = False

    async def load(self) -> None:
        """Read the file of the last process, if there is one."""
        try:
            content = await asyncio.to_thread(self._path.read_bytes)
            held = _FILE.validate_json(content)
        except FileNotFoundError:
            return
        except ValidationError:
            self.damaged = True
            await asyncio.to_thread(self._path.rename, self._path.with_suffix(".damaged"))
            return
        self._held = {(each.device, each.point): each for each in held}

    @property
    def held(self) -> Mapping[Key, PointRevision]:
        """What is on disk."""
        return MappingProxyType(self._held)

    async def keep(self, revision: PointRevision) -> None:
        """Returns when the revision would survive a power cut."""
        held = self._held | {(revision.device, revision.point): revision}
        await asyncio.to_thread(self._replace, list(held.values()))
        self._held = held

    def _replace(self, held: list[PointRevision]) -> None:
        fresh = self._path.with_suffix(".new")
        with fresh.open("wb") as file:
            file.write(json.dumps([each.model_dump() for each in held]).encode())
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self._path)
        folder = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
