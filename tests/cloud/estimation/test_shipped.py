"""The compiled types of `configs/types` keep the bank's promise too: trigonometry, square roots and all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cloud.bank import Bank, Events
from cloud.twins.compile import compile_type
from cloud.twins.model import TwinType
from tests.cloud.estimation.models import MS, SECOND, twin
from wire.settings import parse

TYPES = sorted((Path(__file__).parents[3] / "configs" / "types").glob("*.yaml"))
T0 = 1_700_000_000 * SECOND


def stream(kind: TwinType, handle: int, seed: int, ticks: int = 60) -> Events:
    """Every channel at 10 Hz with jitter: sensors around what the prior would read, inputs around their start."""
    rng = np.random.default_rng(seed)
    k, channels = len(kind.inputs), len(kind.channels)
    x = np.array([[item.initial for item in kind.states]])
    u = np.array([[item.initial for item in kind.inputs]])
    p = np.array([[item.value for item in kind.parameters]])
    centre = np.concatenate([u[0], kind.measure(x, u, p)[0]])
    spread = np.concatenate([np.ones(k), [sensor.noise for sensor in kind.sensors]])
    channel = np.tile(np.arange(channels, dtype=np.int16), ticks)
    time = T0 + np.repeat(np.arange(ticks), channels) * 100 * MS + rng.integers(0, 4, ticks * channels) * 25 * MS
    value = centre[channel] + spread[channel] * rng.normal(size=len(channel))
    count = len(channel)
    return Events(np.full(count, handle), channel, time, np.zeros(count, np.int64), value, np.ones(count))


def feed(bank: Bank, parts: list[Events], delay: int, size: int) -> None:
    """All parts in the order in which they would arrive if each event took 0 .. ``delay`` ns on its way."""
    whole = Events(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
    order = np.argsort(whole.time + np.random.default_rng(9).integers(0, delay + 1, len(whole.time)), kind="stable")
    for start in range(0, len(order), size):
        bank.step(Events(*(column[order[start : start + size]] for column in whole)))


@pytest.mark.parametrize("path", TYPES, ids=lambda path: path.stem)
def test_company_and_arrival_change_no_bit(path: Path) -> None:
    (document,) = parse(path.read_text(), path.name)
    kind = compile_type(document)
    alone, crowd = Bank(), Bank()
    one = alone.adopt(twin(kind))
    handles = [crowd.adopt(twin(kind, f"t{i}")) for i in range(11)]
    feed(alone, [stream(kind, one, 5)], 0, 16)
    feed(
        crowd, [stream(kind, handle, 5 if handle == handles[7] else 50 + handle) for handle in handles], 3 * SECOND, 333
    )
    (time, x, P), (other_time, other_x, other_P) = alone.state(one), crowd.state(handles[7])
    assert (time, x.tobytes(), P.tobytes()) == (other_time, other_x.tobytes(), other_P.tobytes())
    assert np.isfinite(P).all() and (np.linalg.eigvalsh(P) > 0.0).all()
    now = alone.now([one])[0]
    assert now.updates > 50 and repr(now.nis) == repr(crowd.now([handles[7]])[0].nis)
