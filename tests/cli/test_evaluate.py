"""``dfkd-meta evaluate``: the facts, as text and as data, and exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

from dfkd_meta.distillation import evaluation
from dfkd_meta.sidecar.manifest import InputSpec, OutputSpec
from dfkd_meta.teachers import build_model, save_model
from dfkd_meta_cli.main import app

SPEC = InputSpec(
    shape=[1, 8, 8], axes=["c", "h", "w"], value_range=[0.0, 1.0], mean=[0.0], std=[1.0]
)
ARGUMENTS: dict[str, Any] = {"num_classes": 3, "shape": [1, 8, 8], "width": 0.25}


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)])


@pytest.fixture
def model(tmp_path: Path) -> Path:
    module = build_model("digits_cnn", ARGUMENTS, seed=0)
    torch.nn.init.zeros_(module.get_submodule("fc").weight)
    module.get_submodule("fc").bias.data = torch.tensor([0.0, 2.0, 1.0])  # always class 1
    save_model(
        tmp_path / "model",
        module,
        source="builtin",
        architecture="digits_cnn",
        arguments=ARGUMENTS,
        inputs=SPEC,
        outputs=OutputSpec(num_classes=3, label_names=["ant", "bee", "cat"]),
    )
    return tmp_path / "model"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    labels = np.array([0, 1, 1, 1, 2])
    np.savez(tmp_path / "data.npz", images=np.zeros((5, 8, 8), dtype=np.uint8), labels=labels)
    return tmp_path / "data.npz"


def test_json(model: Path, data: Path) -> None:
    result = run(model, "--data", data, "--json")
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    assert facts["accuracy"] == pytest.approx(0.6)
    assert (facts["samples"], facts["correct"], facts["split"]) == (5, 3, "all")
    assert facts["classes"][1] == {"class": "bee", "correct": 3, "samples": 3}


def test_text(model: Path, data: Path) -> None:
    result = run(model, "--data", data, "--per-class", "-q")
    assert result.exit_code == 0, result.output
    assert "60.00 %" in result.stdout
    assert "bee" in result.stdout
    assert "bee" not in run(model, "--data", data, "-q").stdout


def test_the_split_that_was_asked_for(model: Path, tmp_path: Path) -> None:
    parts = {"train": [1, 1, 1], "test": [0, 1]}
    arrays = {f"{name}_labels": labels for name, labels in parts.items()}
    for name, labels in parts.items():
        arrays[f"{name}_images"] = np.zeros((len(labels), 8, 8), np.uint8)
    np.savez(tmp_path / "two.npz", **arrays)
    for split, score in (("train", 1.0), ("test", 0.5)):
        result = run(model, "--data", tmp_path / "two.npz", "--split", split, "--json")
        assert json.loads(result.stdout)["accuracy"] == score
    assert run(model, "--data", tmp_path / "two.npz", "--split", "no").exit_code != 0


@pytest.mark.parametrize(
    ("model_name", "data_name", "code", "says"),
    [
        ("nowhere", "data.npz", 2, "no such folder of a model"),
        ("model", "nowhere.npz", 1, "does not exist"),
        ("model", "nowhere", 1, "no data of that name"),
    ],
)
def test_what_is_not_there(
    model: Path, data: Path, model_name: str, data_name: str, code: int, says: str
) -> None:
    result = run(model.parent / model_name, "--data", data.parent / data_name)
    assert result.exit_code == code
    assert says in result.stderr
    assert "Traceback" not in result.output


def test_unlabeled_data(model: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", images=np.zeros((5, 8, 8), dtype=np.uint8))
    result = run(model, "--data", tmp_path / "x.npz")
    assert result.exit_code == 1
    assert "needs labels" in result.stderr


def test_labels_are_compared_with_classes_before_the_work(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "class_counts", lambda *_, **__: pytest.fail("too late"))
    np.savez(tmp_path / "x.npz", images=np.zeros((2, 8, 8), dtype=np.uint8), labels=[0, 3])
    result = run(model, "--data", tmp_path / "x.npz")
    assert result.exit_code == 1, result.output
    assert "a class 3, the model knows 0 to 2" in result.stderr
