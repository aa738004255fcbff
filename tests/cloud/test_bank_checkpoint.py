"""A bank that is saved, killed and restored is the bank that never stopped, to the last bit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloud.bank import Bank
from cloud.twins.model import Twin
from tests.cloud.estimation.models import MS, SECOND, level, trend, twin
from tests.cloud.estimation.streams import KINDS, T0, Sample, bits, events, run, stream
from wire.errors import BadData


class Store:
    """What a checkpoint store keeps."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}

    def save(self, bank: Bank) -> None:
        self.blobs |= bank.pack()
        bank.saved()

    def revive(self, twins: list[Twin]) -> tuple[Bank, list[str]]:
        bank = Bank()
        for one in twins:
            bank.adopt(one)
        return bank, bank.restore(self.blobs)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_restart_anywhere_changes_no_bit(data: st.DataObject) -> None:
    kinds = [KINDS[i] for i in data.draw(st.lists(st.integers(0, len(KINDS) - 1), min_size=1, max_size=3))]
    samples = [s for i, kind in enumerate(kinds) for s in stream(kind, i, data.draw(st.integers(1, 80)), 7 + i)]
    samples = list(data.draw(st.permutations(samples)))
    steady, _ = run(kinds, samples, [], list(range(len(kinds))))
    twins = [twin(kind, f"t{i}") for i, kind in enumerate(kinds)]
    store, bank = Store(), Bank()
    names = {i: bank.adopt(one) for i, one in enumerate(twins)}
    at = 0
    while at < len(samples):
        size = data.draw(st.integers(1, 30))
        batch = [s._replace(twin=names[s.twin]) for s in samples[at : at + size]]
        bank.step(events(batch))
        fate = data.draw(st.sampled_from(["save", "save", "save", "kill", "failed-save-then-save", "kill-after-save"]))
        if fate == "failed-save-then-save":
            bank.pack()
        if fate != "kill":
            store.save(bank)
            at += size
        if fate.startswith("kill"):  # whatever was not saved comes again, from a bank built in another order
            adopted = data.draw(st.permutations(twins))
            bank, told = store.revive(list(adopted))
            assert told == []
            names = {i: bank._names[one.name] for i, one in enumerate(twins)}
    for i in names:
        assert bits(steady, i) == bits(bank, names[i])


def test_deltas_are_small_and_a_base_replaces_them_in_time() -> None:
    bank, store = Bank(), Store()
    h = bank.adopt(twin(level(horizon_s=30.0)))
    sizes = []
    for i in range(900):
        bank.step(events([Sample(h, 0, T0 + (10 * i + j) * 30 * MS, 0, 0.0) for j in range(10)]))
        blobs = bank.pack()
        sizes.append(sum(map(len, blobs.values())))
        store.blobs |= blobs
        bank.saved()
    assert np.median(sizes) < 1500
    assert max(sizes) < 300_000
    alive = {key: data for key, data in store.blobs.items() if data}
    assert sum(map(len, alive.values())) < 500_000
    again, told = store.revive([twin(level(horizon_s=30.0))])
    assert told == [] and bits(again, 0) == bits(bank, h)


def test_a_batch_taken_between_pack_and_saved_is_saved_later() -> None:
    bank, store = Bank(), Store()
    h = bank.adopt(twin(level()))
    samples = [Sample(h, 0, T0 + i * SECOND, 0, float(i)) for i in range(20)]
    for sample in samples:
        store.blobs |= bank.pack()
        bank.step(events([sample]))
        bank.saved()
    store.save(bank)
    again, _ = store.revive([twin(level())])
    assert bits(again, 0) == bits(bank, h)


def test_a_forgotten_twin_does_not_come_back_and_a_new_one_starts_fresh() -> None:
    bank, store = Bank(), Store()
    a, b = bank.adopt(twin(level(), "a")), bank.adopt(twin(level(), "b"))
    bank.step(events([Sample(h, 0, T0 + i * SECOND, 0, 50.0) for h in (a, b) for i in range(9)]))
    store.save(bank)
    bank.forget(a)
    store.save(bank)
    fresh = bank.adopt(twin(level(), "a"))
    assert bank.state(fresh)[1][0] == 0.0
    bank.step(events([Sample(fresh, 0, T0, 0, 1.0)]))
    store.save(bank)
    again, told = store.revive([twin(level(), "b"), twin(level(), "a")])
    assert told == []
    assert bits(again, 0) == bits(bank, b)
    assert bits(again, 1) == bits(bank, fresh)


def test_a_restart_between_rejections_still_counts_them() -> None:
    steady, bank, store = Bank(), Bank(), Store()
    for one in (steady, bank):
        one.adopt(twin(level(gate=0.999)))
    jump = [Sample(0, 0, T0 + i * SECOND, 0, 0.0 if i < 20 else 400.0 + i % 3) for i in range(25)]
    steady.step(events(jump))
    bank.step(events(jump[:23]))
    store.save(bank)
    bank, _ = store.revive([twin(level(gate=0.999))])
    bank.step(events(jump[23:]))
    assert bank.now([0])[0].resets == 1
    assert bits(bank, 0) == bits(steady, 0)


def test_a_twin_left_out_at_a_restart_is_gone_for_good() -> None:
    bank, store = Bank(), Store()
    for name in ("a", "b"):
        bank.adopt(twin(level(), name))
    bank.step(events([Sample(h, 0, T0, 0, 50.0) for h in range(2)]))
    store.save(bank)
    without, _ = store.revive([twin(level(), "b")])
    store.save(without)
    again, told = store.revive([twin(level(), "a"), twin(level(), "b")])
    assert told == [] and not again.now([0])[0].started and again.now([1])[0].started


def test_what_cannot_be_restored_is_told() -> None:
    bank, store = Bank(), Store()
    for name in ("a", "b"):
        bank.adopt(twin(level(), name))
    bank.adopt(twin(trend(), "c"))
    bank.step(events([Sample(h, 0, T0, 0, 1.0) for h in range(3)]))
    store.save(bank)
    changed = replace(level(), hash="another")
    again, told = store.revive([twin(level(), "b"), twin(changed, "a")])
    assert len(told) == 2 and any(line.startswith("a:") for line in told) and any("trend" in line for line in told)
    assert bits(again, 0) == bits(bank, 1)
    assert not again.now([1])[0].started
    store.save(again)
    assert not any(data for key, data in store.blobs.items() if "trend" in key)


def test_damage_is_bad_data() -> None:
    bank, store = Bank(), Store()
    bank.adopt(twin(level()))
    bank.step(events([Sample(0, 0, T0, 0, 1.0)]))
    store.save(bank)
    (key,) = store.blobs
    for hurt in (
        store.blobs[key][:-1],
        b"\0" + store.blobs[key][1:],
        b"x",
        store.blobs[key][:40] + b"?" + store.blobs[key][41:],
    ):
        with pytest.raises(BadData, match="checkpoint"):
            other = Store()
            other.blobs = {key: hurt}
            other.revive([twin(level())])


def test_a_missing_delta_is_bad_data() -> None:
    bank, store = Bank(), Store()
    bank.adopt(twin(level()))
    for i in range(4):
        bank.step(events([Sample(0, 0, T0 + i * SECOND, 0, 1.0)]))
        store.save(bank)
    assert len(store.blobs) == 4
    del store.blobs[sorted(store.blobs)[-2]]
    with pytest.raises(BadData):
        store.revive([twin(level())])
