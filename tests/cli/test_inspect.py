from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

from dfkd_meta_cli.main import app
from tests.sidecar.cases.records import of
from tests.sidecar.example import full, put, small

run = CliRunner()


def test_the_tables_show_every_part(tmp_path: Path) -> None:
    result = run.invoke(app, ["inspect", str(full().write(tmp_path))])
    assert result.exit_code == 0
    for title in ("Teacher", "Inputs and outputs", "Taps", "Statistics"):
        assert title in result.stdout
    for fact in ("conv2", "c=2 h=2 w=1", "cholesky 2x3x3", "in model.safetensors", "2 classes"):
        assert fact in result.stdout
    # moments 32, soft 16, similarity 16, cov_fc 24 + 72, cov_input 32 + 32 + 8
    assert "6 records, 232 bytes in a file of" in result.stdout


def test_json_holds_the_same_facts(tmp_path: Path) -> None:
    result = run.invoke(app, ["inspect", str(full().write(tmp_path)), "--json"])
    facts = json.loads(result.stdout)
    records = {record["id"]: record for record in facts["statistics"]}
    assert records["cov_fc"]["tensors"]["cholesky"]["bytes"] == 2 * 3 * 3 * 4
    assert records["bn"]["bytes"] == 0  # a pointer costs nothing
    assert records["bn"]["tensors"]["running_mean"]["file"] == "model.safetensors"
    assert sum(record["bytes"] for record in records.values()) == 232
    assert facts["taps"] == full().document["taps"]


def test_optional_facts_are_shown(tmp_path: Path) -> None:
    example = small()
    put("/teacher/repo_id", "user/teacher")(example)
    put("/evaluation", {"accuracy": 0.9375, "samples": 80, "split": "test"})(example)
    result = run.invoke(app, ["inspect", str(example.write(tmp_path) / "dfkd_meta.json")])
    assert "user/teacher" in result.stdout
    assert "93.75% on test" in result.stdout
    some = run.invoke(app, ["inspect", str(of("class-left-out").write(tmp_path / "some"))])
    assert "2, 1 of them not described" in some.stdout


def test_a_broken_manifest_is_refused_in_three_lines(tmp_path: Path) -> None:
    example = small()
    put("/taps", {})(example)
    result = run.invoke(app, ["inspect", str(example.write(tmp_path))])
    assert result.exit_code == 1
    assert "DM121" in result.stderr
    assert "validate" in result.stderr


def test_a_wrong_path(tmp_path: Path) -> None:
    result = run.invoke(app, ["inspect", str(tmp_path / "nothing")])
    assert result.exit_code == 1
    assert "no such file or folder" in result.stderr


def test_no_control_character_of_a_stranger_reaches_the_terminal(tmp_path: Path) -> None:
    example = small()
    put("/teacher/arguments", {"a": "\u001b[31mred\u001b]0;owned\u0007"})(example)
    result = run.invoke(app, ["inspect", str(example.write(tmp_path / "shown"))])
    assert "red" in result.stdout
    put("/privacy/tracing_strength", {"\u001b[31mEVIL" + "x" * 5_000: -1})(example)
    refused = run.invoke(app, ["inspect", str(example.write(tmp_path / "refused"))])
    assert "EVIL" in refused.stderr
    assert len(refused.stderr) < 5_000
    assert "\u001b[31m" not in result.stdout + refused.stderr
    assert "\u0007" not in result.stdout
