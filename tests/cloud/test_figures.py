"""Counts survive their journey through the checkpoint; percentiles are right within a bucket."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.figures import Latency, Tally
from wire.errors import BadData


@given(st.lists(st.floats(0.2, 1e6), min_size=1, max_size=200), st.sampled_from([0.5, 0.9, 0.99, 1.0]))
def test_percentiles_are_right_within_five_percent(milliseconds: list[float], share: float) -> None:
    latency = Latency()
    for half in (milliseconds[::2], milliseconds[1::2]):
        latency.add(np.array(half))
    exact = float(np.quantile(milliseconds, share, method="inverted_cdf"))
    assert latency.percentile(share) == pytest.approx(exact, rel=0.05)


def test_no_readings_have_no_latency_and_odd_ones_stay_inside() -> None:
    latency = Latency()
    assert latency.percentile(0.5) is None
    latency.add(np.array([-5.0, 0.0, 1e300]))
    assert latency.counts[0] == 2
    assert latency.counts[-1] == 1


def test_a_tally_goes_on_where_it_was() -> None:
    tally = Tally(stored=12)
    tally.outcomes.update({"fused": 10, "late": 2})
    tally.latency.add(np.array([1.0, 20.0, 300.0]))
    again = Tally()
    again.restore(tally.pack())
    assert (again.stored, again.outcomes) == (12, tally.outcomes)
    assert again.latency.counts.tolist() == tally.latency.counts.tolist()
    again.outcomes["fused"] += 1
    assert again.outcomes["fused"] == 11


@pytest.mark.parametrize("blob", [b"", b"{}", b'{"stored":1,"outcomes":[],"latency":{}}', b"\xff"])
def test_a_damaged_tally_is_refused(blob: bytes) -> None:
    with pytest.raises(BadData, match="checkpoint"):
        Tally().restore(blob)
