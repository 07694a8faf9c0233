"""``dfkd-meta layers``: the taps of a folder, of a built-in net with weights, of own code."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from dfkd_meta.sidecar.manifest import InputSpec, OutputSpec
from dfkd_meta.teachers import build_model, save_model
from dfkd_meta_cli.main import app

ARGUMENTS: dict[str, Any] = {"num_classes": 3, "shape": [1, 8, 8], "width": 0.25}
INPUT = ["--set", "inputs={shape=[1,8,8], value_range=[0.0,1.0], mean=[0.0], std=[1.0]}"]
CLASSES = ["--set", "num_classes=3", "--set", "arguments.width=0.25"]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["layers", *map(str, arguments)])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_model(
        tmp_path / "model",
        build_model("digits_cnn", ARGUMENTS, seed=0),
        source="builtin",
        architecture="digits_cnn",
        arguments=ARGUMENTS,
        inputs=InputSpec(
            shape=[1, 8, 8], axes=["c", "h", "w"], value_range=[0.0, 1.0], mean=[0.0], std=[1.0]
        ),
        outputs=OutputSpec(num_classes=3),
    )
    return tmp_path / "model"


def test_a_folder(folder: Path) -> None:
    result = run(folder, "--json")
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    taps = {tap["id"]: tap for tap in facts["taps"]}
    assert next(iter(taps)) == "input"
    assert list(taps)[-2:] == ["fc:input", "output"]
    assert taps["conv1:output"] == {
        "id": "conv1:output",
        "module": "Conv2d",
        "axes": "c h w",
        "shape": [4, 8, 8],
        "parameters": 36,
        "linear_in_input": True,
        "records": [],
    }
    text = run(folder).stdout
    assert "4x8x8" in text
    assert "records" not in text


def test_a_built_in_net_with_weights(folder: Path) -> None:
    weights = folder / "model.safetensors"
    named = run("digits_cnn", "--weights", weights, *INPUT, *CLASSES)
    assert named.exit_code == 0, named.output
    assert named.stdout == run(folder).stdout


def test_own_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_layers.py").write_text(
        "import torch\n"
        "def net():\n"
        "    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    result = run("own_layers:net", *INPUT)
    assert result.exit_code == 0, result.output
    assert "1:input" in result.stdout
    export = ["export", "own_layers:net", "--data", str(write_rows(tmp_path)), "--out", "out"]
    assert CliRunner().invoke(app, [*export, *INPUT]).exit_code == 0
    refused = run("out")
    assert "--factory" in refused.stderr
    assert run("out", "--factory", "own_layers:net").exit_code == 0
    sys.modules.pop("own_layers", None)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["digits_cnn"], 2, "inputs.shape is missing"),
        (["digits_cnn", "--set", "inputs=8"], 2, "option 'inputs'"),
        (["digits_cnn", *INPUT, "--set", "inputs.std=[0.0]"], 2, "inputs.std"),
        (["digits_cnn", *INPUT, *CLASSES], 1, "needs one safetensors"),
        (["digits_cnn", *INPUT, *CLASSES, "--weights", "x.pt"], 1, "safetensors only"),
        (["digits_cnn", *INPUT, "--weights", "x.safetensors"], 1, "does not exist"),
        (["lenet6"], 2, "neither a model folder"),
        (["lenet6", *INPUT], 2, "neither a model folder"),
        (["no_module:net", *INPUT], 2, "importing 'no_module' failed"),
    ],
)
def test_wrong_arguments(arguments: list[str], code: int, says: str) -> None:
    result = run(*arguments)
    assert result.exit_code == code, result.output
    assert says in result.stderr
    assert "Traceback" not in result.output


def test_a_folder_with_a_sidecar_shows_its_records(folder: Path, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (60, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "data.npz", images=images, labels=np.arange(60) % 3)
    out, data = str(tmp_path / "out"), str(tmp_path / "data.npz")
    arguments = ["export", str(folder), "--data", data, "--out", out, "--quiet"]
    exported = CliRunner().invoke(app, arguments)
    assert exported.exit_code == 0, exported.output
    taps = {tap["id"]: tap for tap in json.loads(run(out, "--json").stdout)["taps"]}
    assert "batchnorm (global)" in taps["bn2:input"]["records"]
    assert "covariance (per_class)" in taps["fc:input"]["records"]
    assert "records" in run(out).stdout


def write_rows(folder: Path) -> Path:
    """60 images of three classes in a file."""
    images = np.random.default_rng(0).integers(0, 256, (60, 8, 8), dtype=np.uint8)
    np.savez(folder / "rows.npz", images=images, labels=np.arange(60) % 3)
    return folder / "rows.npz"
