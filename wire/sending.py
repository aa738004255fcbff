"""The sending half of the delivery protocol, without I/O: what is in flight, and when to send it again.

The pace is TCP's in small (RFC 5681, RFC 6298): a lost frame shows by three repeated acks or by silence; then one
frame is sent as a probe, and every sign of progress doubles how many may go out, up to the window.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from wire.delivery import StreamKey

REPEATS_MEAN_LOSS = 3


class Mark(NamedTuple):
    """The last record of one stream and epoch in a parcel."""

    key: StreamKey
    epoch: int
    last_seq: int


class Parcel(NamedTuple):
    """One frame, and what must be acknowledged before it may be forgotten."""

    payload: bytes
    marks: tuple[Mark, ...]
    stamp: int = 0
    """When the oldest record in it was committed here, ns UTC."""
    row: int = 0
    """Where that record lies in the caller's store."""


class Sender:
    """A bounded window of parcels in order; times are monotonic seconds."""

    def __init__(
        self,
        window: int = 64,
        *,
        max_bytes: int = 4 << 20,
        first_timeout_s: float = 1.0,
        max_timeout_s: float = 2.0,
    ) -> None:
        self._window = window
        self._max_bytes = max_bytes
        self._first_timeout_s = first_timeout_s
        self._max_timeout_s = max_timeout_s
        self._timeout_s = first_timeout_s
        self._parcels: list[Parcel] = []
        self._bytes = 0
        self._cursor = 0
        self._credit = window
        self._repeats = 0
        self._due: float | None = None
        self._heard: dict[tuple[StreamKey, int], int] = {}

    def __len__(self) -> int:
        """Parcels that are not acknowledged."""
        return len(self._parcels)

    @property
    def free(self) -> bool:
        """Whether another parcel may be pushed."""
        return len(self._parcels) < self._window and self._bytes < self._max_bytes

    @property
    def oldest(self) -> int | None:
        """Commit stamp of the oldest parcel that is not acknowledged."""
        return self._parcels[0].stamp if self._parcels else None

    @property
    def due(self) -> float | None:
        """When ``send`` has something to repeat though nothing was heard; None while nothing is in flight."""
        return self._due

    def push(self, parcel: Parcel) -> None:
        """Add the next parcel."""
        self._parcels.append(parcel)
        self._bytes += len(parcel.payload)

    def send(self, now: float) -> list[Parcel]:
        """The parcels that must go out now."""
        if self._due is not None and now >= self._due:
            self._timeout_s = min(2 * self._timeout_s, self._max_timeout_s)
            self._probe(now)
        out = self._parcels[self._cursor : self._credit]
        self._cursor += len(out)
        if self._due is None and self._cursor:
            self._due = now + self._timeout_s
        return out

    def acknowledge(self, acked: Mapping[tuple[StreamKey, int], int], now: float) -> bool:
        """Hear what is committed: the last seq by (stream, epoch); true if any of it is news, else it is a repeat."""
        news = any(seq > self._heard.get(place, -2) for place, seq in acked.items())
        kept, sent, concerned = [], 0, False
        for index, parcel in enumerate(self._parcels):
            marks = tuple(mark for mark in parcel.marks if mark.last_seq > acked.get(mark[:2], -1))
            concerned = concerned or any(mark[:2] in acked for mark in parcel.marks)
            if marks:
                kept.append(parcel._replace(marks=marks))
                sent += index < self._cursor
        finished = len(self._parcels) - len(kept)
        self._parcels, self._cursor = kept, sent
        if news:
            self._heard.update((place, max(seq, self._heard.get(place, -2))) for place, seq in acked.items())
            self._progress(finished, now)
        elif concerned:
            self._repeats += 1
            if self._repeats == REPEATS_MEAN_LOSS:
                self._probe(now)
        return news

    def recall(self) -> int | None:
        """The pipe is a new one, or the other end has only now begun to listen: whatever was in flight is lost. The
        caller pushes it again, in fuller parcels, from the row returned; None if there was nothing."""
        row = self._parcels[0].row if self._parcels else None
        self._parcels.clear()
        self._bytes = self._cursor = self._repeats = 0
        self._credit, self._due = self._window, None
        self._timeout_s = self._first_timeout_s
        return row

    def clear(self) -> None:
        """Forget everything in flight and everything heard; the caller will push all again from its store."""
        self.recall()
        self._heard.clear()

    def _progress(self, finished: int, now: float) -> None:
        self._bytes = sum(len(parcel.payload) for parcel in self._parcels)
        self._credit = min(2 * self._credit + finished, self._window)
        self._timeout_s = self._first_timeout_s
        self._repeats = 0
        self._due = now + self._timeout_s if self._cursor else None

    def _probe(self, now: float) -> None:
        self._cursor, self._credit = 0, 1
        self._due = now + self._timeout_s
