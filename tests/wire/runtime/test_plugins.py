"""Plug-ins are found by being there, and only the one that is named is imported."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from wire.errors import ConfigError
from wire.runtime import plugins


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    folder = tmp_path / "toolbox"
    folder.mkdir()
    for name, text in {
        "__init__": '"""Doc."""',
        "base": "",
        "hammer": "NAME = 'hammer'",
        "saw": "import no_such_library",
        "saw_teeth": "",
    }.items():
        (folder / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "toolbox", raising=False)
    return "toolbox"


def test_loads_by_name_and_imports_nothing_else(package: str) -> None:
    assert plugins.kinds(package) == ["hammer", "saw"]
    assert plugins.load(package, "hammer").NAME == "hammer"
    assert "toolbox.saw" not in sys.modules


@pytest.mark.parametrize("kind", ["spanner", "base", "saw_teeth", "os.path", "..wire", ""])
def test_an_unknown_kind_is_told_what_there_is(package: str, kind: str) -> None:
    with pytest.raises(ConfigError, match="available here: hammer, saw"):
        plugins.load(package, kind)


def test_a_missing_library_is_named_with_its_remedy(package: str) -> None:
    with pytest.raises(ConfigError, match="no_such_library") as caught:
        plugins.load(package, "saw")
    assert "pip install 'twinline[saw]'" in str(caught.value)


def test_every_registered_kind_of_configuration_names_a_module_and_a_model() -> None:
    for name, point in plugins.config_kinds().items():
        assert point.name == name
        assert point.attr
