"""Where an outbox lies: one process at a time, an SQLite file with the right settings, a damaged one set aside."""

from __future__ import annotations

import fcntl
import logging
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import IO

from wire.errors import ConfigError

log = logging.getLogger("twinline.outbox")

FORMAT = 1
PAGE = 4096


def locked(path: Path) -> IO[bytes]:
    """Held until it is closed or the process is dead: two writers would number the same records."""
    file = path.with_name(path.name + ".lock").open("wb")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise ConfigError.at(
            str(path), "another process has it open", "stop that one, or choose another state"
        ) from None
    return file


def connect(path: Path) -> sqlite3.Connection:
    """A connection whose commits survive a power cut."""
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5.0)
    db.execute(f"PRAGMA page_size = {PAGE}")
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    return db


def sound(path: Path) -> bool:
    """Whether the file can be used. It is read through only after a crash."""
    try:
        with closing(sqlite3.connect(path, timeout=5.0)) as db:
            if not db.execute("SELECT 1 FROM sqlite_master").fetchone():
                return True
            version, clean = db.execute("SELECT format, clean FROM life").fetchone()
            sound = bool(clean) or db.execute("PRAGMA quick_check(1)").fetchone()[0] == "ok"
    except sqlite3.OperationalError as error:
        if error.sqlite_errorname == "SQLITE_ERROR":
            return False
        raise
    except (sqlite3.DatabaseError, TypeError):
        return False
    if version > FORMAT:
        raise ConfigError.at(str(path), f"written by a newer version (format {version})", "use that version, or drain")
    return sound


def set_aside(path: Path, stamp: int) -> None:
    """Keep a damaged file for a person to look at, and make way for a new one."""
    log.error("%s is damaged; set aside as %s.damaged-%d, a new epoch begins", path, path.name, stamp)
    for suffix in ("", "-wal", "-shm"):
        part = path.with_name(path.name + suffix)
        if part.exists():
            part.rename(path.with_name(f"{path.name}.damaged-{stamp}{suffix}"))
