"""The examples run."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dfkd_meta_cli.main import app
from tests.support.small_recipes import write_blobs

ROOT = Path(__file__).parents[1]


def test_a_run_from_a_toml_file(published: Callable[[str, str], Path], tmp_path: Path) -> None:
    arguments = ["distill", str(published("digits_cnn", "standard")), "--out", str(tmp_path / "s")]
    config = ["--config", str(ROOT / "examples" / "quick_run.toml")]
    result = CliRunner().invoke(app, [*arguments, *config, "--set", "training.steps=5", "--json"])
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    assert facts["result"]["images"] == 200
    assert facts["config"]["training"]["batch_size"] == 64


@pytest.mark.parametrize("over", ["time", "records"])
def test_a_bench_is_drawn(over: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="pictures need matplotlib")
    names = "teacher,student,budget,profile,method,seed"
    cell = "lenet5,half,8min,full,recorded,0"
    curves = f"{names},cpu_seconds,accuracy\n{cell},30,0.5\n{cell},60,0.9\n"
    (tmp_path / "curves.csv").write_text(curves)
    scores = "accuracy_mean,accuracy_lowest,accuracy_highest"
    sidecar = "sidecar_bytes,tracing_strength,input_by_class"
    rows = "\n".join([f"{cell},9000,0.2,True,0.9,0.89,0.92", f"{cell},9000,0.2,True,,,"])
    (tmp_path / "table.csv").write_text(f"{names},{sidecar},{scores}\n{rows}\n")
    picture = tmp_path / "picture.svg"
    plot = [sys.executable, str(ROOT / "examples" / "bench" / "plot.py"), str(tmp_path)]
    command = [*plot, "--over", over, "--out", str(picture)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "<svg" in picture.read_text()


def test_a_method_of_ones_own_is_one_file(
    published: Callable[[str, str], Path], tmp_path: Path
) -> None:
    command = [
        sys.executable, str(ROOT / "examples" / "add_a_method.py"),
        str(published("digits_cnn", "minimal")), "--eval-data", str(write_blobs(tmp_path)),
        "--set", "images=60", "options.steps=3", "terms.classes.weight=2",
        "training.steps=5", "training.batch_size=16",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "60 inputs" in done.stdout
    assert "accuracy on" in done.stdout


def test_a_method_of_ones_own_by_its_module(
    published: Callable[[str, str], Path], tmp_path: Path
) -> None:
    command = [
        sys.executable, "-m", "dfkd_meta_cli", "distill", str(published("digits_cnn", "minimal")),
        "--method", "add_a_method:between_classes", "--out", str(tmp_path / "student"), "--json",
        "--set", "images=20", "--set", "options.steps=1", "--set", "training.steps=2",
    ]  # fmt: skip
    where = ROOT / "examples"
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=where)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["result"]["images"] == 20
    assert "--method add_a_method:between_classes" in facts["command"]
