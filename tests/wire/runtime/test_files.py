"""Reading files: what is refused, and how it is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from wire.errors import ConfigError
from wire.runtime import files
from wire.settings import Settings


class Device(Settings):
    device: str
    port: int = 1


def problem(call: object, *arguments: object) -> str:
    with pytest.raises(ConfigError) as caught:
        call(*arguments)  # type: ignore[operator]
    return str(caught.value)


def test_loads_a_model_with_the_environment_filled_in(tmp_path: Path) -> None:
    path = tmp_path / "d.yaml"
    path.write_text("device: ${NAME}\nport: 5\n")
    assert files.load(path, Device, {"NAME": "plc"}) == Device(device="plc", port=5)


def test_names_the_file_in_every_problem(tmp_path: Path) -> None:
    path = tmp_path / "d.yaml"
    path.write_text("device: a\nprot: 5\n")
    assert problem(files.load, path, Device).startswith(f"{path}:2:1: ")
    assert "cannot be read" in problem(files.load, tmp_path / "missing.yaml", Device)
    path.write_bytes(b"device: a\nport: \xff\n")
    assert problem(files.load, path, Device).startswith(f"{path}:2:1: is not UTF-8")
    path.write_bytes(b"#" * (files.MAX_CONFIG_BYTES + 1))
    assert "longer than" in problem(files.load, path, Device)


def test_loads_a_directory_in_order_and_reports_every_bad_file(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "b.yaml").write_text("device: b\n---\ndevice: c\n")
    (tmp_path / "sub" / "a.yaml").write_text("device: a\n")
    assert [each.data["device"] for each in files.load_all(tmp_path, {})] == ["b", "c", "a"]  # type: ignore[call-overload, index]
    (tmp_path / "x.yaml").write_text("device: [\n")
    (tmp_path / "y.yaml").write_text("")
    text = problem(files.load_all, tmp_path, {})
    assert "x.yaml" in text
    assert "y.yaml" in text
    (tmp_path / "empty").mkdir()
    assert "no *.yaml" in problem(files.load_all, tmp_path / "empty", {})


def test_a_secret_is_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "key"
    files.write_secret(path, b"s3cret\n")
    assert path.stat().st_mode & 0o777 == 0o600
    assert files.read_secret(path) == b"s3cret"
    assert "cannot be written" in problem(files.write_secret, path, b"again")
    for mode in (0o640, 0o604, 0o620):
        path.chmod(mode)
        text = problem(files.read_secret, path)
        assert "chmod 600" in text
        assert "s3cret" not in text
    assert "cannot be read" in problem(files.read_secret, tmp_path / "none")
