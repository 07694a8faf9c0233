from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from dfkd_meta.config import make_config
from dfkd_meta.producer.config import ExportConfig
from dfkd_meta.producer.export import export
from dfkd_meta.sidecar import MANIFEST_FILE, read_manifest, read_sidecar
from dfkd_meta.teachers import teacher_from_sidecar
from dfkd_meta_cli.main import app
from tests.support.published import blobs

Published = Callable[[str, str], Path]
run = CliRunner()


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize(
    "chosen",
    [
        {"leave_out": ["quantiles/*", "covariance/*"]},
        {"only": ["moments/*/per_class", "soft_targets/*"], "leave_out": ["*/input/*"]},
        {"only": ["batchnorm/*"]},
    ],
    ids=str,
)
def test_what_is_left_is_what_an_export_without_the_rest_writes(
    chosen: dict[str, Any], published: Published, tmp_path: Path
) -> None:
    whole = published("digits_cnn", "full")
    facts = read_manifest(whole)
    given = {"profile": "full", "created": facts.provenance.created, **chosen}
    config = make_config(ExportConfig, given)
    teacher = teacher_from_sidecar(whole, read_sidecar(whole))
    export(teacher, blobs("train"), config, tmp_path / "exported", evaluation=blobs("test"))
    flags = [
        word
        for name, patterns in chosen.items()
        for pattern in patterns
        for word in (f"--{name.replace('_', '-')}", pattern)
    ]
    result = run.invoke(app, ["redact", str(whole), *flags, "--out", str(tmp_path / "redacted")])
    assert result.exit_code == 0, result.stderr
    assert files(tmp_path / "redacted") == files(tmp_path / "exported")


def test_a_dry_run_says_what_would_go_and_writes_nothing(
    published: Published, tmp_path: Path
) -> None:
    folder, out = published("digits_cnn", "minimal"), tmp_path / "out"
    flags = ["--leave-out", "class_similarity", "--out", str(out), "--dry-run"]
    result = run.invoke(app, ["redact", str(folder), *flags, "--json"])
    facts = json.loads(result.stdout)
    assert facts["removed"] == ["class_similarity"]
    assert facts["profile"] == "custom"  # minimal promises it
    assert len(facts["kept"]) == len(read_manifest(folder).statistics) - 1
    assert not out.exists()
    text = run.invoke(app, ["redact", str(folder), *flags]).stdout
    assert "would remove class_similarity" in text


def test_noise_that_covers_nothing_any_more_is_not_claimed(
    published: Published, tmp_path: Path
) -> None:
    folder = shutil.copytree(published("digits_cnn", "minimal"), tmp_path / "noisy")
    manifest = json.loads((folder / MANIFEST_FILE).read_text("utf-8"))
    claim = {"mechanism": "gaussian", "clip_bound": 4.0, "epsilon": 1.0, "delta": 1e-5}
    manifest["privacy"] |= {**claim, "covers": ["class_similarity"]}
    (folder / MANIFEST_FILE).write_text(json.dumps(manifest), "utf-8")
    for name, mechanism in (("class_similarity", "none"), ("soft_targets/*", "gaussian")):
        out = tmp_path / mechanism
        result = run.invoke(app, ["redact", str(folder), "--leave-out", name, "--out", str(out)])
        assert result.exit_code == 0, result.stderr
        privacy = read_sidecar(out).manifest.privacy
        assert privacy.mechanism == mechanism
        assert (privacy.epsilon is None) == (mechanism == "none")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--leave-out", "nothing/*"], "none of the records matches 'nothing/*'"),
        (["--leave-out", "*"], "no record to take"),
        ([], "there is nothing to take out"),
    ],
)
def test_patterns_that_make_no_sense(
    flags: list[str], said: str, published: Published, tmp_path: Path
) -> None:
    folder = published("digits_cnn", "minimal")
    result = run.invoke(app, ["redact", str(folder), *flags, "--out", str(tmp_path / "out")])
    assert result.exit_code == 2
    assert said in result.stderr
    assert not (tmp_path / "out").exists()


def test_the_sidecar_itself_is_spared(published: Published) -> None:
    folder = published("digits_cnn", "minimal")
    before = files(folder)
    flags = ["--leave-out", "quantiles/*", "--out", str(folder)]
    for more in ([], ["--overwrite"]):
        result = run.invoke(app, ["redact", str(folder), *flags, *more])
        assert result.exit_code == 2
        assert "--out" in result.stderr  # what can be typed, not what a program can do
        assert files(folder) == before
