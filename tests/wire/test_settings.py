"""Settings: every defect at once, each at its line and column, with what to do; and nothing is ever guessed."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from wire.errors import BadData, ConfigError
from wire.points import Name
from wire.settings import (
    NAME_RULE,
    Document,
    Duration,
    LocalPath,
    Quantity,
    Settings,
    Size,
    duration,
    parse,
    parse_one,
    quantity,
    size,
)
from wire.yaml_tree import MAX_CHARACTERS, resolve


class Mqtt(Settings):
    kind: Literal["mqtt"]
    host: str
    port: int
    ca_file: LocalPath | None = None


class Memory(Settings):
    kind: Literal["memory"]


class Device(Settings):
    device: Name
    period: Duration
    range: tuple[float, float] = (0, 1)
    source: Annotated[str | None, Field(alias="from")] = None


class Edge(Settings):
    edge: str
    link: Annotated[Mqtt | Memory, Field(discriminator="kind")]
    devices: list[Device] = []  # noqa: RUF012
    quota: Size = 5


GOOD = """\
# a comment
edge: e1
link: {kind: mqtt, host: 127.0.0.1, port: "${PORT}", ca_file: ../ca.pem}
devices:
  - {device: plc, period: 100 ms, range: [0, 25], from: here}
quota: 64 MiB
"""


def problems(text: str, model: type[Settings] = Edge, env: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(ConfigError) as refused:
        parse_one(text, "edge.yaml", env or {}).load(model)
    return [str(problem).removeprefix("edge.yaml:") for problem in refused.value.problems]


def test_a_good_file_becomes_a_model() -> None:
    document = parse_one(GOOD, "configs/demo/edge.yaml", {"PORT": "1883"})
    edge = document.load(Edge)
    assert (document.kind, document.line) == ("edge", 2)
    assert edge.link == Mqtt(kind="mqtt", host="127.0.0.1", port=1883, ca_file="configs/ca.pem")
    assert edge.devices[0].period == 0.1
    assert edge.devices[0].range == (0.0, 25.0)
    assert edge.quota == 64 * 1024 * 1024


def test_all_defects_are_told_at_once_and_at_their_places() -> None:
    text = """\
edge: e1
link: {kind: mqtt, host: 127.0.0.1, prt: 1, port: true}
devices:
  - {device: 3, period: 100, range: [0, 25]}
  - {period: 100 mss, devce: 3, range: [0, .nan]}
"""
    assert problems(text) == [
        "2:37: unknown key `prt` (did you mean `port`?)",
        "2:51: `link.mqtt.port` must be an integer, not true",
        "4:14: `devices.0.device` must be a string, not 3",
        "4:25: `devices.0.period` must be a number with its unit, such as 100 ms, not 100",
        "5:5: `device` is missing",
        "5:14: `devices.1.period` is wrong: '100 mss' is not a duration, such as 100 ms or 5 min"
        " (us, ms, s, min, h, d)",
        "5:23: unknown key `devce` (did you mean `device`?)",
        "5:44: `devices.1.range.1` must be a finite number, not NaN",
    ]


def test_an_alias_is_the_key_that_is_suggested() -> None:
    found = problems("edge: e\nlink: {kind: memory}\ndevices: [{device: a, period: 1 s, form: b}]")
    assert found == ["3:36: unknown key `form` (did you mean `from`?)"]


def test_keys_without_a_likeness_list_what_is_allowed() -> None:
    found = problems("edge: e\nlink: {kind: memory, zzz: 1}\n")
    assert found == ["2:22: unknown key `zzz` (allowed here: kind)"]


def test_an_unknown_kind_names_the_kinds() -> None:
    assert problems("edge: e\nlink: {kind: mqqt, host: h}\n") == [
        "2:14: `link.kind` cannot be `mqqt` (did you mean `mqtt`?)"
    ]
    assert problems("edge: e\nlink: {kind: zzz, host: h}\n") == [
        "2:14: `link.kind` cannot be `zzz` (allowed here: mqtt, memory)"
    ]


def test_a_name_that_is_none_says_what_a_name_is() -> None:
    (found,) = problems("edge: e\nlink: {kind: memory}\ndevices: [{device: Plc 1, period: 1 s}]\n")
    assert found == f'3:20: `devices.0.device` must be a name, not "Plc 1" ({NAME_RULE})'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("edge: &a e", "1:7: anchor &a"),
        ("edge: e\nlink: *a", "2:7: alias *a"),
        ("edge: !!str e", "1:7: tag"),
        ("edge: e\nedge: f", "2:1: key `edge` appears twice (first in line 1)"),
        ("edge: e\n<<: f", "2:1: merge key <<"),
        ("edge: e\n[a]: f", "2:1: this key is not plain text"),
        ("edge: ${NOWHERE}", "1:7: environment variable NOWHERE is not set"),
        ("edge: {port: ${PORT}}", '"${NAME}"'),
        ("edge:\n\tport: 1", "2:1:"),
        ("edge: [1, 2", "1:"),
        ("edge: 'x", "1:"),
        ("- a", "1:1: a document must be a list of `key: value`"),
        ("", "1:1: the file says nothing"),
        ("# only a comment\n---\n", "1:1: the file says nothing"),
        ("edge: " + "[" * 40 + "]" * 40, "nested deeper"),
        ("edge: \x00", "1:"),
    ],
)
def test_yaml_that_is_not_spoken(text: str, expected: str) -> None:
    found = problems(text)
    assert len(found) == 1
    assert expected in found[0]


def test_several_yaml_defects_are_told_together() -> None:
    assert len(problems("edge: &a e\nedge: *a\nx: !!int 3\ny: ${NOWHERE}")) == 5


def test_a_bomb_is_refused_before_it_is_read() -> None:
    assert "at most" in problems("edge: " + "x" * MAX_CHARACTERS)[0]


def test_an_environment_value_never_adds_structure_nor_shows_itself() -> None:
    (document,) = parse("edge: ${A}\nx: a${B:-c}d\ny: '${A}1'", "f", {"A": "{b: 1}"})
    assert document.data == {"edge": "{b: 1}", "x": "acd", "y": "{b: 1}1"}
    (found,) = problems("edge: e\nlink: {kind: memory}\nquota: ${SECRET}", env={"SECRET": "42"})
    assert found == "3:8: `quota` must be a number with its unit, such as 64 MiB"


def test_documents_of_one_file_keep_their_lines() -> None:
    first, second = parse("edge: a\n---\ntwin: b\n", "f")
    assert (first.kind, first.line, second.kind, second.line) == ("edge", 1, "twin", 3)
    with pytest.raises(ConfigError, match="f:3:1: only one document"):
        parse_one("edge: a\n---\ntwin: b\n", "f")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("~", None),
        ("null", None),
        ("true", True),
        ("False", False),
        ("yes", "yes"),
        ("no", "no"),
        ("on", "on"),
        ("007", 7),
        ("-12", -12),
        ("0o17", 15),
        ("0x1F", 31),
        ("1_000", "1_000"),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("-.inf", -math.inf),
        ("12:30", "12:30"),
        ("2024-01-01", "2024-01-01"),
        ("1.2.3", "1.2.3"),
    ],
)
def test_plain_scalars_are_those_of_yaml_1_2(text: str, value: object) -> None:
    found = resolve(text)
    assert found == value
    assert type(found) is type(value)


def test_a_problem_points_into_plain_and_quoted_text() -> None:
    document: Document = parse_one("type: t\na: 1 + foo\nb: '1 + foo'\nc: >\n  1 + foo\nd: \"\\x41 + foo\"", "f")
    columns = [document.problem((key,), "here", offset=4).column for key in "abcd"]
    assert columns == [8, 9, 4, 4]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("12 kW", Quantity(12.0, None, "kW")),
        ("20 +/- 5", Quantity(20.0, 5.0, "")),
        ("12 +/- 2 kJ/K", Quantity(12.0, 2.0, "kJ/K")),
        ("20 ± 5 °C", Quantity(20.0, 5.0, "°C")),
        ("-1e-5 1/sqrt(s)", Quantity(-1e-5, None, "1/sqrt(s)")),
        ("0.2degC", Quantity(0.2, None, "degC")),
        ("5 %", Quantity(5.0, None, "%")),
    ],
)
def test_quantities(text: str, expected: Quantity) -> None:
    assert quantity(text) == expected


@pytest.mark.parametrize(
    "text", ["", "kW", "12 34", "20 +/-", "1 +/- -2", "nan K", "inf K", "1e999 m", "1.2.3", "١٢ m"]
)
def test_what_is_no_quantity(text: str) -> None:
    with pytest.raises(BadData, match="quantity"):
        quantity(text)


@pytest.mark.parametrize(
    ("text", "seconds"), [("100 ms", 0.1), ("5 min", 300.0), ("1h", 3600.0), ("0 s", 0.0), ("10m", None)]
)
def test_durations(text: str, seconds: float | None) -> None:
    if seconds is None:
        with pytest.raises(BadData, match="duration"):
            duration(text)
    else:
        assert duration(text) == pytest.approx(seconds, rel=1e-15)


@pytest.mark.parametrize("text", ["-1 s", "1 +/- 1 s", "1", "1 KB", "s"])
def test_no_duration_and_no_size(text: str) -> None:
    with pytest.raises(BadData):
        duration(text)
    with pytest.raises(BadData):
        size(text)


@given(st.text(alphabet="ab:-[]{}&*!|>'\"%#\n\t ${}0.e", max_size=80))
def test_no_text_does_more_than_fail(text: str) -> None:
    try:
        parse(text, "f")
    except ConfigError as error:
        assert all(problem.line >= 1 and problem.column >= 1 for problem in error.problems)
