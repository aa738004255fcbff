"""The shape of the code: sizes, one broad except per process, nothing left for later, light imports at the edge."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("wire", "edge", "gateway", "cloud", "simulators")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
HEAVY = ("numpy", "scipy", "sympy", "pint", "asyncua", "influxdb_client", "typer", "rich", "starlette", "amqtt")


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_a_file_fits_a_sitting(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= 350
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or 0) - node.lineno
            assert length <= 60, f"{relative(path)}:{node.lineno} {node.name} has {length} lines"


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_nothing_is_left_for_later(path: Path) -> None:
    assert not re.search(r"\b(TODO|FIXME|XXX|HACK|NotImplementedError)\b", path.read_text())


def test_there_is_one_broad_except() -> None:
    """The supervisor's: everything else names what it handles."""
    broad = [
        relative(path)
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or (isinstance(node.type, ast.Name) and node.type.id in ("Exception", "BaseException")))
    ]
    assert set(broad) <= {"wire/runtime/service.py"}
    assert len(broad) <= 1


def test_seams_stay_small() -> None:
    """A seam has at most four verbs besides entering and leaving."""
    seams = ["wire/runtime/link.py", "edge/drivers/base.py", "cloud/history/base.py", "cloud/checkpoint/base.py"]
    for seam in seams:
        for node in ast.walk(ast.parse((ROOT / seam).read_text())):
            if isinstance(node, ast.ClassDef) and any(getattr(base, "id", "") == "Protocol" for base in node.bases):
                verbs = [m.name for m in node.body if isinstance(m, ast.AsyncFunctionDef | ast.FunctionDef)]
                assert len([verb for verb in verbs if not verb.startswith("__")]) <= 4, node.name


@pytest.mark.parametrize(
    ("entry", "forbidden"),
    [
        ("edge.main", (*HEAVY, "pymodbus")),
        ("gateway.main", tuple(name for name in HEAVY if name not in ("pint", "numpy", "scipy"))),
    ],
)
def test_a_process_imports_only_what_it_needs(entry: str, forbidden: tuple[str, ...]) -> None:
    """Drivers load by kind: starting an agent imports no protocol library and no numbers library."""
    code = f"import sys, {entry}; print(*sorted(name for name in {forbidden!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == []
