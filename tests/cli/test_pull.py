"""``dfkd-meta pull`` as a user meets it, in this process and as a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dfkd_meta.producer import publish as producer
from dfkd_meta_cli.main import app
from tests.support.hub_fixture import REPO
from tests.support.loopback_hub import LoopbackHub
from tests.support.tiny_sidecar import make_tiny_sidecar

run = CliRunner().invoke


@pytest.fixture
def published(tmp_path: Path, loopback_hub: LoopbackHub) -> LoopbackHub:
    producer.publish(make_tiny_sidecar(tmp_path / "export"), REPO)
    return loopback_hub


def test_pull_into_a_folder(published: LoopbackHub, tmp_path: Path) -> None:
    local = tmp_path / "teacher"
    result = run(app, ["pull", REPO, "--local-dir", str(local)])
    assert result.exit_code == 0, result.output
    assert str(local) in result.stdout
    assert f"{REPO}@{published.repos[REPO].history[-1]}" in result.stdout
    assert (local / "model.safetensors").is_file()


def test_pull_into_a_cache_of_ones_own(published: LoopbackHub, tmp_path: Path) -> None:
    result = run(app, ["pull", REPO, "--cache-dir", str(tmp_path / "cache"), "--json"])
    assert result.exit_code == 0, result.output
    assert Path(json.loads(result.stdout)["folder"]).is_relative_to(tmp_path / "cache")


def test_what_else_is_in_the_folder_is_not_pulled(published: LoopbackHub, tmp_path: Path) -> None:
    (tmp_path / "dangling").symlink_to("/nonexistent")
    (tmp_path / "mine.txt").write_text("kept")
    result = run(app, ["pull", REPO, "--local-dir", str(tmp_path), "--json"])
    assert result.exit_code == 0, result.output
    names = {"config.json", "dfkd_meta.json", "dfkd_meta.safetensors", "model.safetensors"}
    assert set(json.loads(result.stdout)["files"]) == names


def test_json_is_json_and_nothing_else(published: LoopbackHub) -> None:
    result = run(app, ["pull", REPO, "--json"])
    facts = json.loads(result.stdout)
    assert facts["files"]["model.safetensors"] == 176
    assert Path(facts["folder"]).is_dir()
    assert result.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["teacher"], 2, "user/repo"),
        ([f"{REPO}@a", "--revision", "b"], 2, "another revision"),
        (["alice/nothing"], 1, "no such repository"),
        ([f"{REPO}@v9"], 1, "no revision"),
        ([REPO, "--local-dir", __file__], 2, "file"),
    ],
)
def test_mistakes(published: LoopbackHub, arguments: list[str], code: int, text: str) -> None:
    result = run(app, ["pull", *arguments])
    assert result.exit_code == code
    assert text in result.stderr
    assert result.stdout == ""


def process(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """``dfkd-meta`` in a fresh interpreter, which reads HF_* itself."""
    code = "from dfkd_meta_cli.main import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_process_of_its_own(published: LoopbackHub, tmp_path: Path) -> None:
    """Online, then offline from the cache, then without any network, by environment alone."""
    online = process("pull", REPO, "--json")
    assert online.returncode == 0, online.stderr
    facts = json.loads(online.stdout)
    pinned = f"{REPO}@{facts['commit']}"
    offline = process(
        "pull", pinned, "--json", HF_HUB_OFFLINE="1", HF_ENDPOINT="http://127.0.0.1:9"
    )
    assert offline.returncode == 0, offline.stderr
    assert json.loads(offline.stdout) == facts
    nowhere = process("pull", REPO, HF_ENDPOINT="http://127.0.0.1:9", HF_HOME=str(tmp_path / "x"))
    assert nowhere.returncode == 3
    assert "cannot be reached" in nowhere.stderr
    assert "Traceback" not in nowhere.stderr
    assert nowhere.stdout == ""
