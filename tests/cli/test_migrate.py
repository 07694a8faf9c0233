from __future__ import annotations

import json
import shutil
from pathlib import Path

from typer.testing import CliRunner

from dfkd_meta.sidecar import read_sidecar
from dfkd_meta_cli.main import app

CASES = Path(__file__).parents[2] / "schema" / "v1.0" / "cases"
OLD = CASES / "valid" / "version-0.9"
run = CliRunner()


def test_in_place(tmp_path: Path) -> None:
    folder = shutil.copytree(OLD, tmp_path / "old")
    result = run.invoke(app, ["migrate", str(folder), "--dry-run"])
    assert result.exit_code == 0
    assert "would write dfkd_meta.json (format 0.9 -> 1.0)" in result.stdout
    result = run.invoke(app, ["migrate", str(folder)])
    assert "wrote dfkd_meta.json" in result.stdout
    assert read_sidecar(folder).manifest.format_version == "1.0"
    result = run.invoke(app, ["migrate", str(folder)])
    assert "nothing to do" in result.stdout


def test_into_another_folder(tmp_path: Path) -> None:
    result = run.invoke(app, ["migrate", str(OLD), "--out", str(tmp_path / "new"), "--json"])
    facts = json.loads(result.stdout)
    assert (facts["from"], facts["to"], facts["dry_run"]) == ("0.9", "1.0", False)
    assert set(facts["written"]) == {path.name for path in (tmp_path / "new").iterdir()}
    again = run.invoke(app, ["migrate", str(OLD), "--out", str(tmp_path / "new")])
    assert again.exit_code == 2
    assert "the output folder is not empty" in again.stderr
    assert "--overwrite" not in again.stderr  # it has no such option


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way", "utf-8")
    result = run.invoke(app, ["migrate", str(OLD), "--out", str(tmp_path / "file" / "new")])
    assert result.exit_code == 2
    assert "cannot write" in result.stderr


def test_an_invalid_sidecar_is_not_migrated(tmp_path: Path) -> None:
    folder = shutil.copytree(CASES / "invalid" / "newer-major", tmp_path / "new")
    result = run.invoke(app, ["migrate", str(folder)])
    assert result.exit_code == 1
    assert "DM110" in result.stderr
