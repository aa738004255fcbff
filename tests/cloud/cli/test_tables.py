"""What people see."""

from __future__ import annotations

import pytest

from cloud.api.schema import StepReply
from cloud.cli.tables import plus_minus, step


@pytest.mark.parametrize(
    ("value", "band", "shown"),
    [
        (12.3456, 0.27, ("12.35", "0.27")),
        (12.3456, 2.7, ("12.3", "2.7")),
        (123.456, 41.0, ("123", "41")),
        (-7.49e-07, 0.0013, ("0.0000", "0.0013")),
        (1.5e-9, 2.2e-10, ("1.5e-09", "2.2e-10")),
        (3.0, 0.0, ("3.0000", "0.0000")),
    ],
)
def test_a_value_has_the_digits_that_its_band_knows_about(value: float, band: float, shown: tuple[str, str]) -> None:
    assert plus_minus(value, band) == shown


def test_a_step_says_what_was_written_and_what_came_back() -> None:
    detail: dict[str, object] = {"value": 3.1, "readback": 3.101, "unit": "V"}
    assert step(StepReply(what="verified", reason="readback", at=0, detail=detail)).plain.endswith(
        "verified  readback  wrote 3.1 V, read back 3.101 V"
    )
    assert step(StepReply(what="accepted", reason="accepted", at=0, detail={})).plain.endswith("  accepted")
