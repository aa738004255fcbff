"""The bank's promise: the posterior depends on the set of events and on nothing else, to the last bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloud.bank import Bank, Events, Outcome, Outputs
from tests.cloud.estimation.models import MS, SECOND, level, tank, trend, twin
from tests.cloud.estimation.streams import KINDS, T0, Sample, bits, events, run, stream


def rows_of(outputs: list[Outputs]) -> dict[tuple[str, int], tuple[int, bytes, bytes]]:
    """Final row of every twin and tick, as a store would keep it: highest revision wins, equal ones must be equal."""
    kept: dict[tuple[str, int], tuple[int, bytes, bytes]] = {}
    for output in outputs:
        for table in output.estimates:
            for i, name in enumerate(table.twin):
                row = int(table.revision[i]), table.mean[i].tobytes(), table.sigma[i].tobytes()
                old = kept.get((name, int(table.time[i])))
                if old is None or row[0] >= old[0]:
                    kept[name, int(table.time[i])] = row
    return kept


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_arrival_order_batches_and_company_change_no_bit(data: st.DataObject) -> None:
    which = data.draw(st.lists(st.integers(0, len(KINDS) - 1), min_size=1, max_size=4))
    kinds = [KINDS[i] for i in which]
    seed = data.draw(st.integers(0, 10_000))
    streams = [stream(kind, i, data.draw(st.integers(1, 60)), seed + i) for i, kind in enumerate(kinds)]
    ordered = sorted((s for one in streams for s in one), key=lambda s: s.time)
    unique = {(s.twin, s.channel, s.time, s.origin): s for s in reversed(ordered)}
    ordered = sorted(unique.values(), key=lambda s: s.time)
    calm, calm_rows = run(kinds, ordered, [], list(range(len(kinds))))
    shuffled = data.draw(st.permutations(ordered))
    cuts = data.draw(st.lists(st.integers(0, 500), max_size=8))
    adopted = data.draw(st.permutations(range(len(kinds))))
    wild, wild_rows = run(kinds, list(shuffled), cuts, list(adopted))
    for place in range(len(kinds)):
        there = calm._names[f"t{place}"], wild._names[f"t{place}"]
        assert bits(calm, there[0]) == bits(wild, there[1])
    assert rows_of(calm_rows) == rows_of(wild_rows)


@pytest.mark.parametrize("every", [100 * MS, 20 * SECOND])
def test_a_crowd_changes_no_bit(every: int) -> None:
    for kind in KINDS:
        samples = stream(kind, 0, 50, 5, every)
        alone, _ = run([kind], samples, [], [0])
        crowd = [s for i in range(97) for s in stream(kind, i, 20 + i % 60, 100 + i, every)]
        crowd = [s for s in crowd if s.twin != 41] + [s._replace(twin=41) for s in samples]
        together, _ = run([kind] * 97, sorted(crowd, key=lambda s: s.time), [700, 1900], list(range(97)))
        assert bits(alone, 0) == bits(together, 41)


def test_every_event_ends_in_one_outcome() -> None:
    bank = Bank()
    a = bank.adopt(twin(level(horizon_s=10.0)))
    first = Sample(a, 0, T0 + 20 * SECOND, 0, 1.0)
    batch = [
        first,
        first,
        first._replace(origin=1),
        first._replace(time=T0 + 9 * SECOND),
        first._replace(time=T0 + 10 * SECOND),
        first._replace(value=np.nan),
        first._replace(noise=0.0),
        first._replace(channel=1),
        first._replace(twin=99),
    ]
    out = bank.step(events(batch))
    F, L, D, R = Outcome.FUSED, Outcome.LATE, Outcome.DUPLICATE, Outcome.REFUSED
    assert out.outcome.tolist() == [F, D, F, L, F, R, R, R, R]
    again = bank.step(events(batch[:5]))
    assert again.outcome.tolist() == [D, D, D, L, D]
    assert bank.now([a])[0].updates == 3
    bank.forget(a)
    assert bank.step(events([first])).count(R) == 1
    with pytest.raises(KeyError):
        bank.state(a)
    with pytest.raises(KeyError):
        bank.now([a])


def test_lateness_counts_from_the_newest_arrival_within_a_batch() -> None:
    def outcomes(cuts: list[int]) -> list[int]:
        times = [0, 5, 3, 20, 9, 10, 31, 21]
        samples = [Sample(0, 0, T0 + t * SECOND, 0, 0.0) for t in times]
        _, outputs = run([level(horizon_s=10.0)], samples, cuts, [0])
        return [code for output in outputs for code in output.outcome.tolist()]

    F, L = Outcome.FUSED, Outcome.LATE
    assert outcomes([]) == outcomes(list(range(8))) == outcomes([5]) == [F, F, F, F, L, F, F, F]


def test_ticks_rest_on_all_events_up_to_them_and_silence_writes_nothing() -> None:
    bank = Bank()
    h = bank.adopt(twin(level()))
    out = bank.step(events([Sample(h, 0, T0 + t * MS, 0, 1.0) for t in (200, 1000, 1300, 9500, 10_100)]))
    (rows,) = out.estimates
    assert ((rows.time - T0) // SECOND).tolist() == [1, 2, 10]
    assert rows.revision.tolist() == [2, 3, 4]
    late = bank.step(events([Sample(h, 0, T0 + 1200 * MS, 0, 5.0), Sample(h, 0, T0 + 4500 * MS, 0, 5.0)])).estimates[0]
    assert [(int(t - T0) // SECOND, int(r)) for t, r in zip(late.time, late.revision, strict=False)] == [
        (1, 2),
        (2, 4),
        (5, 5),
        (10, 6),
    ]
    assert late.mean[0] == rows.mean[0]
    assert late.mean[1] != rows.mean[1]


def test_a_tick_waits_for_all_events_of_its_own_time() -> None:
    bank = Bank()
    h = bank.adopt(twin(level()))
    written = [
        bank.step(events([Sample(h, 0, T0 + t * MS, origin, 1.0)])).estimates
        for t, origin in ((200, 0), (1000, 0), (1000, 1), (1001, 0))
    ]
    assert [len(tables) for tables in written] == [0, 0, 0, 1]
    assert written[3][0].revision.tolist() == [3]


def test_now_and_forecast_leave_the_live_twin_alone() -> None:
    bank = Bank()
    h = bank.adopt(twin(tank()))
    bank.step(events(sorted(stream(tank(), h, 60, 3), key=lambda s: s.time)))
    before = bits(bank, h)
    newest = bank.state(h)[0]
    mean, sigma = bank.forecast(h, np.array([newest + s * SECOND for s in (1, 60, 600)]))
    assert mean.shape == sigma.shape == (3, 6)
    later = bank.now([h], newest + 60 * SECOND)[0]
    assert later.mean.tobytes() == mean[1].tobytes()
    assert bank.now([h], newest - SECOND)[0].time == newest
    assert bits(bank, h) == before


def test_now_keeps_the_order_of_the_handles_and_knows_silent_twins() -> None:
    bank = Bank()
    handles = [bank.adopt(twin(kind, f"t{i}")) for i, kind in enumerate([level(), trend(), level()])]
    bank.step(events([Sample(handles[2], 0, T0, 0, 7.0)]))
    third, first, second = bank.now([handles[2], handles[0], handles[1]])
    assert third.started and third.measured[0] == 7.0 and third.measured_at[0] == T0
    assert not first.started and first.newest == -1 and np.isnan(first.measured[0]) and first.measured_at[0] == -1
    assert second.mean.shape == (2,) and np.isnan(second.nis)
    assert first.mean[0] == 0.0 and first.sigma[0] == 10.0


def test_a_twin_cannot_be_adopted_twice() -> None:
    bank = Bank()
    bank.adopt(twin(level()))
    with pytest.raises(ValueError, match="already"):
        bank.adopt(twin(trend()))


def test_more_events_than_the_ring_may_hold_stay_bounded() -> None:
    bank = Bank()
    h = bank.adopt(twin(level(horizon_s=1e6)))
    count = 17_000
    columns = Events(
        np.full(count, h), np.zeros(count, np.int16), T0 + np.arange(count) * MS, np.zeros(count, np.int64),
        np.zeros(count), np.ones(count),
    )  # fmt: skip
    assert bank.step(columns).count(Outcome.FUSED) == count
    assert bank._groups[0].cohort.ring.capacity <= 32_768
    early = bank.step(events([Sample(h, 0, T0 + 10 * MS, 9, 0.0), Sample(h, 0, T0 + 16_900 * MS, 9, 0.0)]))
    assert early.outcome.tolist() == [Outcome.LATE, Outcome.FUSED]
