"""What the twins would believe if nothing had ever gone wrong: their stored readings, fused in one undisturbed pass.

The posterior is a function of the set of readings, so a live twin that has been killed, restored and fed late data must
agree with its replay to the last bit. That is what `replay` is for: proof, and a second opinion on a live twin.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from cloud.bank import Bank, Events
from cloud.history.base import History, Readings
from cloud.routing import UNCERTAIN_NOISE, bindings, join, select
from cloud.twins.model import Twin
from wire.quality import FIRST_BAD, FIRST_UNCERTAIN, Quality

FOREVER = 1 << 62


async def replay(history: History, twins: Mapping[str, Twin], start: int = 0, end: int = FOREVER) -> Bank:
    """A fresh bank holding these twins, in the mapping's order, after all their readings in [start, end).

    Handles count from 0 in the mapping's order. ``start`` should not be later than the twins' first reading, else the
    replay begins from the prior in the middle of their life.
    """
    bank, parts = Bank(), []
    for twin in twins.values():
        handle = bank.adopt(twin)
        for channel, _unit, point in bindings(twin):
            parts.append(_events(handle, channel, await history.readings(point, start, end)))
    if parts:
        events = join(parts)
        bank.step(select(events, np.argsort(events.time, kind="stable")))
    return bank


def _events(handle: int, channel: int, readings: Readings) -> Events:
    """The readings of one point that a filter may see."""
    quality = readings.quality
    good = np.isfinite(readings.value) & (quality < FIRST_BAD) & (quality != Quality.UNCERTAIN_AHEAD)
    count = int(np.count_nonzero(good))
    return Events(
        twin=np.full(count, handle, np.int64),
        channel=np.full(count, channel, np.int16),
        time=readings.time[good],
        origin=readings.ordinal[good],
        value=readings.value[good],
        noise=np.where(quality[good] < FIRST_UNCERTAIN, 1.0, UNCERTAIN_NOISE),
    )
