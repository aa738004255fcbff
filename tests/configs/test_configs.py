"""Every file under ``configs/`` is loaded by the model of its kind; nothing there can rot unnoticed."""

from __future__ import annotations

from pathlib import Path

import pytest

from wire.errors import ConfigError
from wire.runtime import files, plugins

CONFIGS = Path(__file__).parents[2] / "configs"
YAML_FILES = sorted(path for path in CONFIGS.rglob("*.yaml"))
ENVIRONMENT = {
    "TWINLINE_STATE": "/tmp/state", "TWINLINE_TRUTH": "/tmp/truth.jsonl", "MQTT_PORT": "1883", "MODBUS_PORT": "5020",
    "OPCUA_PORT": "4840", "API_PORT": "8080", "INFLUX_URL": "http://127.0.0.1:8086",
}  # fmt: skip


def name(path: Path) -> str:
    return str(path.relative_to(CONFIGS))


def test_the_folder_holds_yaml_only() -> None:
    assert len(YAML_FILES) > 15
    assert [path for path in CONFIGS.rglob("*") if path.is_file() and path not in YAML_FILES] == []


@pytest.mark.parametrize("path", YAML_FILES, ids=name)
def test_a_file_is_what_its_first_key_says(path: Path) -> None:
    kinds = plugins.config_kinds()
    documents = files.load_all(path, ENVIRONMENT)
    assert documents
    for document in documents:
        document.load(kinds[document.kind].load())


def test_a_broken_file_would_be_noticed(tmp_path: Path) -> None:
    broken = tmp_path / "gateway.yaml"
    broken.write_text((CONFIGS / "quickstart" / "gateway.yaml").read_text().replace("south:", "sout:"))
    (document,) = files.load_all(broken, ENVIRONMENT)
    with pytest.raises(ConfigError) as caught:
        document.load(plugins.config_kinds()["gateway"].load())
    assert any("sout" in problem.message and problem.line == 5 for problem in caught.value.problems)
