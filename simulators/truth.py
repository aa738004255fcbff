"""The truth log: what the plants' states really were. A local file, never a topic, a node or a register.

One JSON object a line: ``t_ns`` (UTC), ``plant`` (its device's name), ``states`` (by the names and in
the units of the plant) and, while any fault is active, ``faults`` (their names, in the same time base).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self


class TruthLog:
    """Appends lines to a file; the file is flushed once a second so that a reader is never far behind."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[str] | None = None
        self._flushed_ns = 0

    def __enter__(self) -> Self:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._path.open("a", encoding="utf-8")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def write(self, t_ns: int, plant: str, states: Mapping[str, float], faults: Sequence[str]) -> None:
        """Note one plant's state at one time."""
        if self._file is None:
            return
        line: dict[str, object] = {"t_ns": t_ns, "plant": plant, "states": dict(states)}
        if faults:
            line["faults"] = list(faults)
        self._file.write(json.dumps(line) + "\n")
        if t_ns - self._flushed_ns >= 1_000_000_000:
            self._file.flush()
            self._flushed_ns = t_ns
