"""Counting by someone who trusts nobody: the edges' own totals, and every reading in the history file, one by one."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import numpy as np

ROW = np.dtype([("time", "<i8"), ("value", "<f8"), ("point", "<i4"), ("ordinal", "<i4"), ("quality", "u1")])
"""One reading in the history file; ``point`` is a place in the record's list of point names."""


class Count(NamedTuple):
    """Readings stored, and how many of them differ in (point, time, ordinal)."""

    rows: int
    distinct: int


def count_stored(history: Path) -> Count:
    """Every reading in an embedded history file; the file may be in use."""
    with closing(sqlite3.connect(f"file:{history}?mode=ro", uri=True)) as connection:
        names = {key: json.loads(text) for key, text in connection.execute("SELECT id, names FROM points")}
        numbers: dict[str, int] = {}
        keys = [
            _keys(np.frombuffer(blob, dtype=ROW), names[schema], numbers)
            for schema, blob in connection.execute("SELECT points, rows FROM chunk")
        ]
    if not keys:
        return Count(0, 0)
    key = np.concatenate(keys, axis=1)
    return Count(key.shape[1], np.unique(key, axis=1).shape[1])


def _keys(
    rows: np.ndarray[tuple[int], np.dtype[np.void]], names: Sequence[str], numbers: dict[str, int]
) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    """(3, R): number of the point's full name, time, ordinal."""
    number = np.array([numbers.setdefault(name, len(numbers)) for name in names], dtype=np.int64)
    return np.stack([number[rows["point"]], rows["time"], rows["ordinal"].astype(np.int64)])
