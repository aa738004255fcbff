"""What was refused, set aside with its reason so that a person can look at it: one JSON object a line.

The file is bounded: at half of ``limit_bytes`` it is renamed to ``….1`` (replacing the older half) and begun again.
`put` never waits; when more is refused than the disk takes, the newest is counted in ``lost`` and forgotten, because
rubbish must not slow the pipeline.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

log = logging.getLogger("twinline.deadletter")

EXCERPT_BYTES = 4_096
"""How much of a refused payload is kept."""
WAITING = 256
"""How many refused payloads may wait for the disk."""


class DeadLetters:
    """The set-aside payloads of one process. Call order: `put` any time, `run` in a task of its own."""

    def __init__(self, path: Path, *, limit_bytes: int = 8 << 20, now: Callable[[], int]) -> None:
        self.count = 0
        """Refused since this process began."""
        self.lost = 0
        """Refused, but not written: too many at once, or the disk refused."""
        self._path = path
        self._limit = limit_bytes
        self._now = now
        self._waiting: deque[str] = deque()
        self._wake = asyncio.Event()

    def put(self, topic: str, payload: bytes, reason: str) -> None:
        """Set one payload aside; ``reason`` begins with a word that a program can test."""
        self.count += 1
        if len(self._waiting) >= WAITING:
            self.lost += 1
            return
        text = payload[:EXCERPT_BYTES].decode(errors="backslashreplace")
        entry = {"at": self._now(), "topic": topic, "reason": reason}
        self._waiting.append(json.dumps(entry | {"bytes": len(payload), "payload": text}))
        self._wake.set()

    async def run(self) -> None:
        """Write until cancelled; what is waiting then is written first."""
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                lines = self._take()
                await asyncio.to_thread(self._append, lines)
        finally:
            self._append(self._take())

    def _take(self) -> list[str]:
        lines = list(self._waiting)
        self._waiting.clear()
        return lines

    def _append(self, lines: Sequence[str]) -> None:
        if not lines:
            return
        try:
            if self._path.exists() and self._path.stat().st_size > self._limit // 2:
                self._path.replace(self._path.with_name(self._path.name + ".1"))
            with self._path.open("a", encoding="utf-8") as file:
                file.writelines(f"{line}\n" for line in lines)
        except OSError as error:
            if not self.lost:
                log.warning("cannot set refused payloads aside in %s: %s", self._path, error)
            self.lost += len(lines)
