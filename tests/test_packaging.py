"""What an installation holds: every package, the schema, and no name that is not ours."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SETUP = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
BUILD = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"


def test_every_package_is_listed() -> None:
    found = {"dfkd_meta_cli", "dfkd_meta._schema"}
    for init in (ROOT / "dfkd_meta").rglob("__init__.py"):
        found.add(".".join(init.parent.relative_to(ROOT).parts))
    assert sorted(SETUP["packages"]) == sorted(found)


def test_every_python_file_lies_in_a_package() -> None:
    for path in (ROOT / "dfkd_meta").rglob("*.py"):
        assert (path.parent / "__init__.py").is_file(), path


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Names of the files in a wheel, built from a copy with the setuptools at hand (no network)."""
    setuptools = pytest.importorskip("setuptools", minversion="77")
    copy = tmp_path_factory.mktemp("source")
    for name in ("dfkd_meta", "cli", "schema"):
        unwanted = shutil.ignore_patterns("__pycache__", "cases")
        shutil.copytree(ROOT / name, copy / name, ignore=unwanted)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    command = [sys.executable, "-c", BUILD, str(copy / "dist")]
    done = subprocess.run(command, cwd=copy, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"setuptools {setuptools.__version__}: {done.stderr}"
    (built,) = (copy / "dist").glob("*.whl")
    return zipfile.ZipFile(built).namelist()


def test_a_wheel_holds_nothing_but_dfkd_meta(wheel: list[str]) -> None:
    tops = {name.split("/")[0] for name in wheel}
    assert {"dfkd_meta", "dfkd_meta_cli"} < tops
    (metadata,) = tops - {"dfkd_meta", "dfkd_meta_cli"}
    assert metadata.startswith("dfkd_meta-")
    assert metadata.endswith(".dist-info")


def test_a_wheel_holds_every_module_the_schema_and_the_type_marker(wheel: list[str]) -> None:
    folders = {"dfkd_meta": "dfkd_meta", "cli": "dfkd_meta_cli"}
    for folder, package in folders.items():
        for path in (ROOT / folder).rglob("*.py"):
            assert f"{package}/{path.relative_to(ROOT / folder).as_posix()}" in wheel
    assert "dfkd_meta/py.typed" in wheel
    assert "dfkd_meta/_schema/v1.0/dfkd_meta.schema.json" in wheel
