"""Errors sorted by what the receiver of the error should do.

::

    TwinlineError
    ├── ConfigError    stop: somebody must edit a file (exit code 2)
    ├── Unavailable    wait and try again: the peer, bus, broker or database is away
    ├── Rejected       tell the sender and do not retry: the request itself is refused
    └── BadData        count it, set it aside with its reason, go on

A library's own exceptions are translated in exactly one file each.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Problem(NamedTuple):
    """One defect in one configuration file, at the place where a person can mend it."""

    file: str
    line: int
    column: int
    message: str
    hint: str = ""

    def __str__(self) -> str:
        hint = f" ({self.hint})" if self.hint else ""
        return f"{self.file}:{self.line}:{self.column}: {self.message}{hint}"


class TwinlineError(Exception):
    """Root of every error that this project raises on purpose."""


class ConfigError(TwinlineError):
    """A configuration cannot be used; carries every problem found, not only the first."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))

    @classmethod
    def at(cls, file: str, message: str, hint: str = "", *, line: int = 1, column: int = 1) -> ConfigError:
        """One problem at one place."""
        return cls([Problem(file, line, column, message, hint)])


class Unavailable(TwinlineError):
    """The other side is away; the same call may work later."""


class Rejected(TwinlineError):
    """The request is refused for good; ``reason`` is a short lower-case word a program can test."""

    def __init__(self, reason: str, detail: str = "") -> None:
        self.reason = reason
        self.detail = detail
        super().__init__(f"{reason}: {detail}" if detail else reason)


class BadData(TwinlineError):
    """Received bytes or values that cannot be used; ``reason`` is a short word a program can test."""

    def __init__(self, reason: str, detail: str = "") -> None:
        self.reason = reason
        self.detail = detail
        super().__init__(f"{reason}: {detail}" if detail else reason)
