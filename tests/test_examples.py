"""The examples run."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from typer.testing import CliRunner

from dfkd_meta_cli.main import app
from tests.support.published import blobs

ROOT = Path(__file__).parents[1]


def test_comparing_methods_prints_a_table(
    published: Callable[[str, str], Path], tmp_path: Path
) -> None:
    arrays = {}
    for split in ("train", "test"):
        data = blobs(split)
        arrays[f"{split}_images"] = data.read(slice(None)).numpy()
        arrays[f"{split}_labels"] = data.labels
    np.savez(tmp_path / "blobs.npz", **arrays)
    command = [
        sys.executable, str(ROOT / "examples" / "compare_methods.py"),
        str(published("digits_cnn", "full")), str(tmp_path / "blobs.npz"),
        "--students", "real_kd", "noise", "--seeds", "0", "1", "--threads", "1",
        "--set", "training.steps=3", "training.batch_size=32",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    table = done.stdout.splitlines()[4:]
    assert table[0].startswith("| student of a `full` sidecar")
    assert [row.split("|")[1].strip() for row in table[2:]] == ["real data, KD", "noise"]


def test_a_run_from_a_toml_file(published: Callable[[str, str], Path], tmp_path: Path) -> None:
    arguments = ["distill", str(published("digits_cnn", "standard")), "--out", str(tmp_path / "s")]
    config = ["--config", str(ROOT / "examples" / "quick_run.toml")]
    result = CliRunner().invoke(app, [*arguments, *config, "--set", "training.steps=5", "--json"])
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    assert facts["result"]["images"] == 500
    assert facts["config"]["training"]["batch_size"] == 64
