"""Event streams to try a bank with, and what must be equal about two of them."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np

from cloud.bank import Bank, Events, Outputs
from cloud.twins.model import TwinType
from tests.cloud.estimation.models import MS, SECOND, driven, level, tank, trend, twin

T0 = 1_700_000_000 * SECOND


class Sample(NamedTuple):
    twin: int
    channel: int
    time: int
    origin: int
    value: float
    noise: float = 1.0


def events(samples: list[Sample]) -> Events:
    columns = list(zip(*samples, strict=False)) or [()] * 6
    kinds = (np.int64, np.int16, np.int64, np.int64, np.float64, np.float64)
    return Events(*(np.array(column, kind) for column, kind in zip(columns, kinds, strict=False)))


def stream(kind: TwinType, handle: int, count: int, seed: int, every: int = 100 * MS) -> list[Sample]:
    """Inputs and samples of all channels with jitter, some at equal times, some wild enough for the gate."""
    rng = np.random.default_rng(seed)
    samples = []
    for i in range(count):
        channel = int(rng.integers(len(kind.channels)))
        tight = kind.name == "tank"
        base = (0.125 if channel >= 2 else 3.0) if tight else 0.0
        spread = (0.003 if channel >= 2 else 0.3) if tight else 1.0
        value = base + spread * rng.normal() * (40 if rng.random() < 0.1 else 1)
        time = T0 + i * every + int(rng.integers(3)) * 50 * MS
        samples.append(
            Sample(handle, channel, time, int(rng.integers(4)), float(value), 3.0 if rng.random() < 0.2 else 1.0)
        )
    return samples


def bits(bank: Bank, handle: int) -> tuple[object, ...]:
    """Everything that must be equal, as bytes."""
    time, x, P = bank.state(handle)
    now = bank.now([handle], time + 1700 * MS)[0]
    counts = now.updates, now.gated, now.resets, now.nis_count
    return time, x.tobytes(), P.tobytes(), now.mean.tobytes(), now.sigma.tobytes(), repr(now.nis), now.nis_total, counts


KINDS = [
    level(gate=0.99),
    trend(gate=0.99, initial_from=["s0", None]),
    driven(gate=0.99),
    driven(gate=0.99, is_linear=False),
    tank(),
]


def run(kinds: list[TwinType], samples: list[Sample], cuts: list[int], order: list[int]) -> tuple[Bank, list[Outputs]]:
    """Twins adopted in ``order``; samples name twins by their place in ``kinds``; batches end at ``cuts``."""
    bank = Bank()
    handles = {}
    for place in order:
        handles[place] = bank.adopt(twin(kinds[place], f"t{place}"))
    moved = [sample._replace(twin=handles[sample.twin]) for sample in samples]
    borders = [0, *sorted(cut % (len(moved) + 1) for cut in cuts), len(moved)]
    outputs = [bank.step(events(moved[a:b])) for a, b in itertools.pairwise(borders)]
    return bank, outputs
