"""The container recipe, the compose file and the systemd unit, checked without an engine.

The compose file is checked against the Compose Specification's own schema, and against the models below, which hold
only what our file uses: any other key, any dangling reference and anything that would weaken a container fails.
"""

from __future__ import annotations

import configparser
import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Annotated, Literal

import jsonschema
import pytest
from pydantic import BaseModel, ConfigDict, Field
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "gateway" / "compose.yaml"
DOCKERFILE = ROOT / "gateway" / "Dockerfile"
UNIT = ROOT / "edge" / "twin-edge.service"
SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Build(Part):
    context: str
    dockerfile: str
    args: dict[str, str]


class SecretUse(Part):
    source: str


class Service(Part):
    image: str | None = None
    build: Build | None = None
    command: list[str] | None = None
    user: Annotated[str, Field(pattern=r"^[1-9]\d*:[1-9]\d*$")]
    environment: dict[str, str] = {}
    ports: list[Annotated[str, Field(pattern=r"^\d+:\d+$")]] = []
    volumes: list[str] = []
    secrets: list[SecretUse] = []
    networks: list[str]
    depends_on: list[str] = []
    read_only: Literal[True]
    cap_drop: Annotated[list[str], Field(min_length=1, max_length=1)]
    security_opt: list[Literal["no-new-privileges:true"]]
    tmpfs: list[str]
    mem_limit: Annotated[str, Field(pattern=r"^\d+[mg]$")]
    restart: Literal["unless-stopped"]


class Network(Part):
    internal: bool = False


class Volume(Part):
    pass


class Secret(Part):
    file: str


class Compose(Part):
    name: str
    services: dict[str, Service]
    networks: dict[str, Network]
    volumes: dict[str, Volume]
    secrets: dict[str, Secret]


@pytest.fixture(scope="module")
def compose() -> Compose:
    return Compose.model_validate(json.loads(json.dumps(YAML(typ="safe").load(COMPOSE))))


def test_the_compose_file_obeys_the_compose_specification() -> None:
    schema = json.loads((Path(__file__).parent / "compose_spec.json").read_text())
    written = json.loads(json.dumps(YAML(typ="safe").load(COMPOSE)))
    del written["name"]  # came into the specification after this edition of its schema
    jsonschema.Draft201909Validator(schema).validate(written)
    written["services"]["gateway"]["read_onyl"] = True
    with pytest.raises(jsonschema.ValidationError, match="read_onyl"):
        jsonschema.Draft201909Validator(schema).validate(written)


def test_every_reference_in_the_compose_file_leads_somewhere(compose: Compose) -> None:
    assert set(compose.services) == {"mosquitto", "gateway", "cloud", "influxdb"}
    for name, service in compose.services.items():
        assert (service.image is None) != (service.build is None), name
        assert service.image is None or re.search(r":\d+\.\d+\.\d+$", service.image), f"{name}: no pinned version"
        assert service.cap_drop == ["ALL"]
        assert set(service.networks) <= set(compose.networks)
        assert set(service.depends_on) <= set(compose.services)
        assert {use.source for use in service.secrets} <= set(compose.secrets)
        for volume in service.volumes:
            source, _, target = volume.partition(":")
            assert target.startswith("/"), volume
            if not source.startswith("."):
                assert source in compose.volumes, volume
            elif "secrets" not in source:
                assert (COMPOSE.parent / source).resolve().is_file(), volume
                assert target.endswith(":ro"), volume
    assert {use.source for each in compose.services.values() for use in each.secrets} == set(compose.secrets)


def test_what_the_containers_run_is_what_this_project_installs(compose: Compose) -> None:
    for service in compose.services.values():
        if service.build is None:
            continue
        assert (COMPOSE.parent / service.build.context).resolve() == ROOT
        assert ROOT / service.build.dockerfile == DOCKERFILE
        assert set(service.build.args["EXTRAS"].split(",")) <= set(EXTRAS)
        assert service.command is not None
        program, config = service.command
        assert program in SCRIPTS
        assert any(volume.endswith(f":{config}:ro") for volume in service.volumes)


def test_secrets_named_in_the_configuration_are_mounted(compose: Compose) -> None:
    for name in ("gateway", "cloud"):
        text = (ROOT / "configs" / "compose" / f"{name}.yaml").read_text()
        named = set(re.findall(r"/run/secrets/([a-z-]+)", text))
        assert named == {use.source for use in compose.services[name].secrets}
    broker = (ROOT / "gateway" / "mosquitto.conf").read_text()
    assert "allow_anonymous false" in broker
    assert "password_file /run/secrets/mqtt-passwords" in broker


def instructions() -> list[tuple[str, str]]:
    text = re.sub(r"\\\n", " ", DOCKERFILE.read_text())
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in lines]


def test_the_image_ends_unprivileged_and_starts_an_installed_program() -> None:
    found = instructions()
    last_stage = found[max(index for index, (word, _) in enumerate(found) if word == "FROM") :]
    assert [argument for word, argument in last_stage if word == "USER"] == ["1000:1000"]
    assert not any(word == "RUN" and "pip" in argument for word, argument in last_stage), "network in the last stage"
    (command,) = [json.loads(argument) for word, argument in last_stage if word == "CMD"]
    assert command[0] in SCRIPTS
    after_user = [word for word, _ in last_stage[[word for word, _ in last_stage].index("USER") :]]
    assert "RUN" not in after_user
    assert "COPY" not in after_user


def test_what_the_image_copies_exists_and_is_what_the_wheel_packs() -> None:
    copied = [argument.split()[:-1] for word, argument in instructions() if word == "COPY" and "--from" not in argument]
    sources = {source for sources in copied for source in sources}
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert set(packages["packages"]) <= sources
    for source in sources:
        assert (ROOT / source).exists(), source


def unit() -> configparser.ConfigParser:
    class Repeating(dict[str, str]):
        """systemd adds up a key that comes again."""

        def __setitem__(self, key: str, value: str) -> None:
            if isinstance(value, list) and key in self:
                value = self[key] + value
            super().__setitem__(key, value)

    parser = configparser.ConfigParser(strict=False, dict_type=Repeating, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(UNIT.read_text())
    return parser


def test_the_unit_checks_first_restarts_always_and_stops_at_a_wrong_configuration() -> None:
    service = unit()["Service"]
    assert "twin-edge --check /etc/twinline/edge.yaml" in service["ExecStartPre"]
    assert service["ExecStart"].endswith("twin-edge /etc/twinline/edge.yaml")
    assert (service["Restart"], service["RestartPreventExitStatus"]) == ("always", "2")


def test_the_unit_confines_the_agent() -> None:
    service = unit()["Service"]
    for key in ("DynamicUser", "NoNewPrivileges", "PrivateTmp", "PrivateDevices", "ProtectHome", "LockPersonality"):
        assert service[key] == "yes", key
    assert service["ProtectSystem"] == "strict"
    assert service["CapabilityBoundingSet"] == ""
    assert service["StateDirectory"] == "twinline"
    assert service["MemoryMax"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_reads_the_unit_and_finds_it_tight(tmp_path: Path) -> None:
    """Paths are pointed at programs that exist here; the score is systemd's own, 0 tight to 10 open."""
    local = tmp_path / "twin-edge.service"
    local.write_text(UNIT.read_text().replace("/opt/twinline/bin/twin-edge", "/bin/true"))
    verified = subprocess.run(["systemd-analyze", "verify", local], capture_output=True, text=True, check=False)
    assert "twin-edge.service" not in verified.stderr, verified.stderr
    scored = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", local], capture_output=True, text=True, check=False
    )
    score = re.search(r"Overall exposure level for twin-edge.service: ([\d.]+)", scored.stdout)
    assert score is not None, scored.stdout + scored.stderr
    assert float(score[1]) <= 2.0
