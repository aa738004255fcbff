"""Edge files: every defect at once, at its place, with what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge import assembly
from edge.config import EdgeConfig, Profile
from edge.drivers import modbus, mqtt, opcua
from wire.errors import ConfigError
from wire.runtime import files

ROOT = Path(__file__).parents[2]
PLACES = {"TWINLINE_STATE": "/var/lib/twinline", "MQTT_PORT": "1883", "MODBUS_PORT": "1502", "OPCUA_PORT": "4840"}


def problems(folder: Path, text: str, model: type = Profile) -> list[str]:
    file = folder / "file.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        files.load(file, model, {})
    return [str(problem).removeprefix(f"{file}:") for problem in caught.value.problems]


@pytest.mark.parametrize("file", sorted((ROOT / "configs" / "profiles").glob("*.yaml")), ids=lambda file: file.stem)
def test_every_shipped_profile_is_read(file: Path) -> None:
    profile = files.load(file, Profile)
    kinds = {"modbus": modbus.Address, "opcua": opcua.Address, "mqtt": mqtt.Address}
    assert all(isinstance(point, kinds[profile.kind]) for point in profile.points)


@pytest.mark.parametrize(
    "file", sorted(ROOT.glob("configs/*/edge*.yaml")), ids=lambda file: f"{file.parent.stem}-{file.stem}"
)
def test_every_shipped_edge_is_read(file: Path) -> None:
    assert files.load(file, EdgeConfig, PLACES).devices


def test_all_defects_of_a_profile_at_once(tmp_path: Path) -> None:
    text = """\
profile: bad
kind: modbus
ordr: abcd
points:
  - {point: a, table: input, addres: 3, scale: 0}
  - {point: b, table: coil, address: 70000, type: int16}
  - {point: c, table: holding, address: 1, write: {range: [3, 1], safe: 0}}
  - {point: d, unit: cm, table: holding, address: 1, write: {range: [0, 1], safe: 0, rate: 1 V/s}}
  - {point: e, table: holding, address: 1, bit: 3}
  - {point: f, table: holding, address: 1, write: {range: [0, 1], safe: 7}}
"""
    assert problems(tmp_path, text) == [
        "3:1: unknown key `ordr` (allowed here: profile, kind, points)",
        "5:5: `address` is missing",
        "5:38: `points.0.addres` is an unknown key (did you mean `address`?), not 3",
        "5:48: `points.0.scale` scale must not be zero, not 0",
        "6:38: `points.1.address` must be less than or equal to 65535, not 70000",
        "7:51: `points.2.write` range 3.0 .. 1.0 is upside down",
        "8:5: `points.3` rate is in 'V/s', must be in 'cm/s': the edge converts no units",
        "9:5: `points.4` bit is only for type bool",
        "10:51: `points.5.write` safe value 7.0 lies outside the range 0.0 .. 1.0",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("profile: p\nkind: modbuss\npoints: []\n", "unknown kind `modbuss`"),
        ("profile: p\nkind: modbus\npoints: []\n", "at least one point"),
        ("profile: p\nkind: mqtt\npoints: [{point: a}]\n", "needs a topic"),
        ("profile: p\nkind: opcua\npoints: [{point: a, node: x}, {point: a, node: y}]\n", "declared twice: a"),
        (
            "profile: p\nkind: opcua\npoints: [{point: a, node: x, write: {range: [0, 1], safe: 0, readback: b}}]\n",
            "read-back 'b' is not a point",
        ),
    ],
)
def test_a_profile_that_cannot_work(tmp_path: Path, text: str, expected: str) -> None:
    assert expected in "\n".join(problems(tmp_path, text))


def test_address_fields_at_the_top_are_defaults(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(
        "profile: p\nkind: modbus\norder: cdab\ntable: input\npoints:\n"
        "  - {point: a, address: 0, type: float32}\n  - {point: b, address: 2, order: abcd, table: coil}\n"
    )
    a, b = files.load(file, Profile).points
    assert isinstance(a, modbus.Address)
    assert isinstance(b, modbus.Address)
    assert (a.order, a.table, a.type, b.order, b.table, b.type) == ("cdab", "input", "float32", "abcd", "coil", "bool")


def test_defects_of_devices_are_named_by_their_driver(tmp_path: Path) -> None:
    text = """\
edge: e
site: s
gateway: g
state: s
link: {kind: mqtt}
devices:
  - {device: a, kind: modbus, profile: p.yaml, period: 1 s, hosst: x}
  - {device: b, kind: opcua, profile: p.yaml, url: "http://x"}
  - {device: c, kind: bacnet, profile: p.yaml}
  - {device: d, kind: modbus, profile: p.yaml, host: x, period: 1}
"""
    found = problems(tmp_path, text, EdgeConfig)
    assert [line.split(":")[0] for line in found] == ["7", "7", "8", "9", "10"]
    for line, expected in zip(
        found, ("`host` is missing", "did you mean `host`", "pattern", "bacnet", "unit"), strict=True
    ):
        assert expected in line


def test_an_edge_is_checked_with_all_its_files(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("profile: p\nkind: modbus\npoints: [{point: a, table: input, adress: 1}]\n")
    (tmp_path / "q.yaml").write_text("profile: q\nkind: opcua\npoints: [{point: a, node: x}]\n")
    write = "write: {range: [0, 1], safe: 0}"
    (tmp_path / "r.yaml").write_text(
        f"profile: r\nkind: modbus\npoints: [{{point: a, table: input, address: 1, {write}}}]\n"
    )
    devices = "".join(f"  - {{device: {n}, kind: modbus, profile: {n}.yaml, host: x}}\n" for n in "pqrs")
    (tmp_path / "edge.yaml").write_text(
        f"edge: e\nsite: s\ngateway: g\nstate: s\ntrust: t.yaml\nlink: {{kind: mqtt}}\ndevices:\n{devices}"
    )
    with pytest.raises(ConfigError) as caught:
        assembly.read(str(tmp_path / "edge.yaml"))
    found = "\n".join(map(str, caught.value.problems))
    for expected in (
        "p.yaml:3",
        "did you mean `address`",
        "profile is for `opcua`",
        "a cannot be written",
        "s.yaml",
        "t.yaml",
    ):
        assert expected in found
