"""Times as people and programs write them."""

from __future__ import annotations

import pytest

from cloud.api.times import NS, moment, span
from wire.errors import BadData


@pytest.mark.parametrize(
    ("text", "seconds"), [("10m", 600), ("10 min", 600), ("1.5 h", 5400), ("90s", 90), ("500ms", 0.5), ("1 d", 86_400)]
)
def test_spans(text: str, seconds: float) -> None:
    assert span(text) == round(seconds * NS)


@pytest.mark.parametrize("text", ["", "10", "m", "-5 s", "ten m", "1 week", "nan s", "1e300 s", "1e308 d", "300 d 5 h"])
def test_what_is_no_span(text: str) -> None:
    with pytest.raises(BadData):
        span(text)


def test_moments() -> None:
    now = 1_700_000_000 * NS
    assert moment("now", now) == now
    assert moment("10m", now) == now - 600 * NS
    assert moment("1700000000000000001", now) == now + 1
    assert moment("2023-11-14T22:13:20Z", 0) == now
    assert moment("2023-11-14T23:13:20.000001+01:00", 0) == now + 1000


@pytest.mark.parametrize(
    "text",
    [
        "yesterday",
        "2023-11-14",
        "2023-11-14T22:13:20",
        "-1",
        "9223372036854775808",
        "9" * 5000,
        "9999-01-01T00:00:00Z",
        "1e300 s",
    ],
)
def test_what_is_no_moment(text: str) -> None:
    with pytest.raises(BadData):
        moment(text, 0)
