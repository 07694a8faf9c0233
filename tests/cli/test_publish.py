"""``dfkd-meta publish`` as a user meets it: what it prints, and how it exits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dfkd_meta_cli.main import app
from tests.support.hub_fixture import REPO
from tests.support.loopback_hub import LoopbackHub
from tests.support.tiny_sidecar import make_tiny_sidecar

run = CliRunner().invoke


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_tiny_sidecar(tmp_path / "export")


def test_publish_then_nothing_to_do(folder: Path, loopback_hub: LoopbackHub) -> None:
    first = run(app, ["publish", str(folder), "--repo", REPO])
    assert first.exit_code == 0, first.output
    assert "sent        model.safetensors  176 bytes" in first.stdout
    assert loopback_hub.repos[REPO].history[-1] in first.stdout
    assert "validating" in first.stderr
    second = run(app, ["publish", str(folder), "--repo", REPO])
    assert second.exit_code == 0
    assert "nothing to commit" in second.stdout


def test_dry_run(folder: Path, loopback_hub: LoopbackHub) -> None:
    result = run(app, ["publish", str(folder), "--repo", REPO, "--dry-run"])
    assert result.exit_code == 0
    assert "would send  dfkd_meta.json" in result.stdout
    assert "nothing was sent" in result.stdout
    assert loopback_hub.repos == {}


def test_json_is_json_and_nothing_else(folder: Path, loopback_hub: LoopbackHub) -> None:
    result = run(app, ["publish", str(folder), "--repo", REPO, "--private", "--json"])
    facts = json.loads(result.stdout)
    assert facts["commit"] == loopback_hub.repos[REPO].history[-1]
    assert {"path": "model.safetensors", "size": 176} in facts["uploaded"]
    assert facts["creates"] is True
    assert result.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["--repo", "no-slash"], 2, "not a repository"),
        (["--repo", REPO, "--revision", "../x"], 2, "branch"),
        (["--repo", REPO, "--token", "hf_bob"], 1, "hf auth login"),
        ([], 2, "--repo"),
    ],
)
def test_mistakes(
    folder: Path, loopback_hub: LoopbackHub, arguments: list[str], code: int, text: str
) -> None:
    result = run(app, ["publish", str(folder), *arguments])
    assert result.exit_code == code
    assert text in result.stderr
    assert result.stdout == ""
    assert loopback_hub.repos == {}


def test_folder_without_a_sidecar(tmp_path: Path, loopback_hub: LoopbackHub) -> None:
    for where in (tmp_path, tmp_path / "missing"):
        result = run(app, ["publish", str(where), "--repo", REPO])
        assert result.exit_code == 1
        assert "dfkd_meta.json" in result.stderr
    assert loopback_hub.requests == []
