"""Log lines and counters."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest

from wire.runtime.observe import Counters, Health, configure_logging


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    logger = logging.getLogger()
    handlers, level = logger.handlers[:], logger.level
    yield logger
    logger.handlers[:] = handlers
    logger.setLevel(level)


def fail() -> None:
    try:
        int("two\nlines")
    except ValueError:
        logging.getLogger("twinline.x").exception("it %s", "broke")


def test_an_event_is_one_line_even_with_a_traceback(root: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging()
    fail()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("ERROR twinline.x: it broke | Traceback")


def test_an_event_can_be_an_object(root: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(json=True)
    fail()
    event = json.loads(capsys.readouterr().err)
    assert (event["level"], event["logger"], event["message"]) == ("error", "twinline.x", "it broke")
    assert "ValueError" in event["trace"]


def test_counters_split_what_went_wrong_by_reason() -> None:
    counters = Counters()
    counters.drop("late", 3)
    counters.drop("late")
    counters.fail("away")
    assert (counters.dropped, counters.errors, counters.reasons) == (4, 1, {"late": 4, "away": 1})


def test_health_logs_each_change_once(caplog: pytest.LogCaptureFixture) -> None:
    health = Health(logging.getLogger("twinline.h"))
    with caplog.at_level(logging.INFO):
        health.back("plc")
        health.lost("plc", "timeout")
        health.lost("plc", "refused")
        assert (health.good, health.faults) == (False, {"plc": "refused"})
        health.back("plc")
    assert health.good
    assert [each.getMessage() for each in caplog.records] == ["plc lost: timeout", "plc back"]
