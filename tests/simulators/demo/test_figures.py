"""The figures of a run are computed right, and can go wrong."""

from __future__ import annotations

import json
import math
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from simulators.demo import audit
from simulators.demo.cast import Role, StateRole
from simulators.demo.figures import Ledger, read_truth, state_figures
from simulators.demo.replies import Band, History, Trace

SECOND = 1_000_000_000
START = 1_800_000_000 * SECOND


def truth_lines(states: list[dict[str, float]]) -> list[str]:
    return [
        json.dumps({"t_ns": START + index * SECOND, "plant": "tank", "states": row}) + "\n"
        for index, row in enumerate(states)
    ]


def history(mean: list[float], sigma: float, raw: list[float | None], name: str = "h1") -> History:
    time = [START + index * SECOND // 2 for index in range(len(mean))]
    return History(
        twin="tank-1",
        time=time,
        states={name: Band(unit="cm", mean=mean, sigma=[sigma] * len(mean))},
        readings={name: Trace(unit="cm", time=time, value=raw)},
    )


def test_errors_are_taken_against_the_truth_between_its_lines() -> None:
    truth = read_truth(truth_lines([{"h1": 10.0}, {"h1": 12.0}]))["tank"]
    role = Role("tank-1", "tank", {"h1": StateRole("h1", "h1")})
    found = state_figures(history([10.1, 11.1, 11.9], 0.2, [11.0, None, 10.0]), truth, role)["h1"]
    assert found.rmse_twin == pytest.approx(0.1)
    assert found.nees == pytest.approx(0.25)
    assert found.rmse_raw == pytest.approx(math.sqrt((1.0 + 4.0) / 2))


def test_rows_outside_the_truth_do_not_count() -> None:
    truth = read_truth(truth_lines([{"h1": 10.0}, {"h1": 10.0}]))["tank"]
    role = Role("tank-1", "tank", {"h1": StateRole("h1")})
    found = state_figures(history([10.0, 10.0, 10.0, 99.0, 99.0], 1.0, [None] * 5), truth, role)["h1"]
    assert found.rmse_twin == 0.0
    assert found.rmse_raw is None


def test_an_angle_goes_the_short_way_round() -> None:
    truth = read_truth(truth_lines([{"a": 6.2}, {"a": 6.4}]))["tank"]
    role = Role("tank-1", "tank", {"h1": StateRole("a", period=math.tau)})
    found = state_figures(history([6.2, 6.3 - math.tau, 6.4 - 2 * math.tau], 1.0, [None] * 3), truth, role)["h1"]
    assert found.rmse_twin == pytest.approx(0.0, abs=1e-9)


def test_a_torn_last_line_of_the_truth_is_left_out() -> None:
    lines = truth_lines([{"h1": 1.0}, {"h1": 2.0}])
    truth = read_truth([*lines, '{"t_ns": 18'])["tank"]
    assert truth.states["h1"].tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    ("ledger", "lost", "duplicates"),
    [
        (Ledger(committed=100, dropped=0, applied=100, stored=100, rows=100), 0, 0),
        (Ledger(committed=100, dropped=10, applied=90, stored=90, rows=90), 0, 0),
        (Ledger(committed=100, dropped=0, applied=100, stored=97, rows=97), 3, 0),
        (Ledger(committed=100, dropped=0, applied=97, stored=100, rows=100), 3, 0),
        (Ledger(committed=100, dropped=0, applied=100, stored=100, rows=105), 0, 5),
        (Ledger(committed=100, dropped=0, applied=104, stored=100, rows=100), 0, 4),
    ],
)
def test_lost_and_duplicates_show_on_either_side(ledger: Ledger, lost: int, duplicates: int) -> None:
    assert (ledger.lost, ledger.duplicates) == (lost, duplicates)


def test_the_audit_counts_every_row_of_the_history_file(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    rows = np.zeros(3, dtype=audit.ROW)
    rows["time"], rows["point"] = [1, 1, 2], [0, 1, 0]
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE points (id INTEGER PRIMARY KEY, names TEXT)")
        connection.execute("CREATE TABLE chunk (points INTEGER, rows BLOB)")
        connection.execute("INSERT INTO points VALUES (1, ?)", (json.dumps(["a", "b"]),))
        connection.execute("INSERT INTO points VALUES (2, ?)", (json.dumps(["b"]),))
        connection.execute("INSERT INTO chunk VALUES (1, ?)", (rows.tobytes(),))
        connection.execute("INSERT INTO chunk VALUES (2, ?)", (rows[:1].tobytes(),))
    connection.close()
    assert audit.count_stored(path) == (4, 3)
