from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dfkd_meta_cli.main import app
from tests.sidecar.example import full, put, small

CASES = Path(__file__).parents[2] / "schema" / "v1.0" / "cases"
run = CliRunner()


def test_a_valid_folder() -> None:
    result = run.invoke(app, ["validate", str(CASES / "valid" / "standard")])
    assert result.exit_code == 0
    assert result.stdout.endswith("standard: valid\n")


def test_the_manifest_itself_may_be_named() -> None:
    path = CASES / "valid" / "standard" / "dfkd_meta.json"
    assert run.invoke(app, ["validate", str(path)]).exit_code == 0


def test_an_invalid_folder_lists_code_place_and_mending() -> None:
    result = run.invoke(app, ["validate", str(CASES / "invalid" / "negative-variance")])
    assert result.exit_code == 1
    assert "error DM341 /statistics/0/tensors/variance: " in result.stdout
    assert "  mend: compute variances in float64" in result.stdout
    assert "not valid (1 error)" in result.stdout


def test_strict_lets_warnings_fail() -> None:
    path = str(CASES / "valid" / "unknown-field")
    assert run.invoke(app, ["validate", path]).exit_code == 0
    assert run.invoke(app, ["validate", path, "--strict"]).exit_code == 1


@pytest.mark.parametrize("case", ["valid/full", "invalid/negative-variance"])
def test_json_holds_the_same_facts(case: str) -> None:
    result = run.invoke(app, ["validate", str(CASES / case), "--json"])
    facts = json.loads(result.stdout)
    assert facts["valid"] == (result.exit_code == 0)
    expected = json.loads((CASES / case / "expected.json").read_text("utf-8"))
    keys = ("code", "severity", "path")
    assert [{key: issue[key] for key in keys} for issue in facts["issues"]] == [
        {key: issue[key] for key in keys} for issue in expected
    ]
    assert sum(facts["counts"].values()) == len(expected)


@pytest.mark.parametrize(
    "name", ["nothing", "dfkd_meta.safetensors", "x" * 5000], ids=["nothing", "other", "long"]
)
def test_a_wrong_path_gives_one_clear_error(tmp_path: Path, name: str) -> None:
    small().write(tmp_path)
    result = run.invoke(app, ["validate", str(tmp_path / name)])
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("error")
    assert "where:" in result.stderr
    assert "hint:" in result.stderr


def test_a_folder_without_a_sidecar(tmp_path: Path) -> None:
    result = run.invoke(app, ["validate", str(tmp_path)])
    assert result.exit_code == 1
    assert "DM101" in result.stdout


def test_no_control_character_of_a_file_reaches_the_terminal(tmp_path: Path) -> None:
    example = full()
    put("/teacher/\u001b[31mred\u0007", 1)(example)
    result = run.invoke(app, ["validate", str(example.write(tmp_path))])
    assert "DM130" in result.stdout
    assert "\u001b" not in result.stdout
    assert "\u0007" not in result.stdout
