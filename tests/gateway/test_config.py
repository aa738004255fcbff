"""The gateway's configuration: what is right loads, what is wrong is told, all of it, with its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.config import GatewayConfig
from gateway.main import main
from gateway.normalise import Rule
from wire.errors import ConfigError
from wire.runtime import files

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {"TWINLINE_STATE": "/tmp/state", "MQTT_PORT": "1883", "MQTT_PROTOCOL": "3.1.1"}


@pytest.mark.parametrize("name", ["configs/demo/gateway.yaml", "configs/compose/gateway.yaml"])
def test_the_gateways_in_configs_load(name: str) -> None:
    config = files.load(ROOT / name, GatewayConfig, ENVIRONMENT)
    assert config.gateway == "gw-1"
    assert config.grace == 600.0


@pytest.mark.parametrize(("environment", "protocol"), [({"MQTT_PROTOCOL": "5"}, "5"), ({}, "5")])
def test_a_protocol_from_the_environment_may_look_like_a_number(environment: dict[str, str], protocol: str) -> None:
    known = {"TWINLINE_STATE": "/tmp/state", "MQTT_PORT": "1883"}
    config = files.load(ROOT / "configs/demo/gateway.yaml", GatewayConfig, known | environment)
    assert config.north.protocol == protocol


def load(tmp_path: Path, more: str) -> GatewayConfig:
    path = tmp_path / "gateway.yaml"
    path.write_text(
        "gateway: gw-1\nsite: demo\nstate: state\nsouth: {kind: mqtt, host: 127.0.0.1}\n"
        f"north: {{kind: mqtt, host: 127.0.0.1}}\n{more}"
    )
    return files.load(path, GatewayConfig, {})


def test_rules_are_for_one_edge_and_paths_are_beside_the_file(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        "points:\n"
        "  - {edge: edge-1, device: plc, point: level, range: [0, 25]}\n"
        "  - {edge: edge-2, device: plc, point: noise, deadband: 0.5, feeds_twin: false}\n",
    )
    assert config.state == str(tmp_path / "state")
    assert config.rules("edge-1") == {("plc", "level"): Rule(0.0, 25.0)}
    assert config.rules("edge-2") == {("plc", "noise"): Rule(deadband=0.5)}
    assert config.rules("edge-3") == {}


def test_a_deadband_is_refused_on_a_point_that_feeds_a_filter(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="starves a filter"):
        load(tmp_path, "points: [{edge: e, device: d, point: p, deadband: 0.5}]\n")


def test_every_problem_is_told_at_once_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, "quota: 12\ngrase: 5 min\npoints: [{edge: E, device: d, point: p, range: [2, 1]}]\n")
    told = str(caught.value)
    assert len(caught.value.problems) >= 3
    assert "gateway.yaml:6:" in told
    assert "gateway.yaml:7:" in told
    assert "did you mean `grace`?" in told


def test_check_only_checks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "gateway.yaml"
    path.write_text("gateway: gw-1\nsite: Demo\n")
    assert main([str(path), "--check"]) == 2
    assert "gateway.yaml:2:7:" in capsys.readouterr().err
    assert main([str(ROOT / "configs/compose/gateway.yaml"), "--check"]) == 0
