"""The stamp of the newest committed reading of every point, kept across restarts.

A server or broker repeats its newest value whenever the edge subscribes again; only the stamp shows that it is not a
new reading. The file is a memory map, so a stamp costs no system call and survives the death of the process; after a
power cut an old stamp may come back, which lets one repetition through.
"""

from __future__ import annotations

import mmap
import struct
from hashlib import blake2b
from pathlib import Path
from typing import Self

_HEAD = 16


class Stamps:
    """One int64 per point of the schema named by ``schema_hash``; another schema starts from nothing."""

    def __init__(self, path: Path, schema_hash: str, points: int) -> None:
        self._path = path
        self._head = blake2b(schema_hash.encode(), digest_size=_HEAD).digest()
        self._size = _HEAD + 8 * points
        self._map: mmap.mmap | None = None

    def __enter__(self) -> Self:
        held = self._path.read_bytes() if self._path.exists() else b""
        if len(held) != self._size or not held.startswith(self._head):
            self._path.write_bytes(self._head + bytes(self._size - _HEAD))
        with self._path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), self._size)
        return self

    def __exit__(self, *exc: object) -> None:
        if self._map is not None:
            self._map.close()

    def get(self, point: int) -> int:
        """0 where nothing has been committed yet."""
        assert self._map is not None
        stamp: int = struct.unpack_from("<q", self._map, _HEAD + 8 * point)[0]
        return stamp

    def set(self, point: int, time: int) -> None:
        assert self._map is not None
        struct.pack_into("<q", self._map, _HEAD + 8 * point, time)
