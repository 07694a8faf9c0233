"""``dfkd-meta export``: what it prints, and what it says to every wrong argument."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from dfkd_meta.sidecar import InputSpec, OutputSpec, read_sidecar
from dfkd_meta.teachers import build_model, save_model
from dfkd_meta_cli.main import app

INPUTS = [
    "--set=inputs.shape=[1,8,8]",
    "--set=inputs.value_range=[0,1]",
    "--set=inputs.mean=[0.3]",
    "--set=inputs.std=[0.4]",
]
ARGUMENTS = {"num_classes": 3, "shape": [1, 8, 8], "width": 0.1}
BARE = ["--set=num_classes=3", "--set=arguments.width=0.1"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a teacher in ``teacher/`` and 60 images in ``data.npz``."""
    save_model(
        tmp_path / "teacher",
        build_model("digits_cnn", ARGUMENTS, seed=0),
        source="builtin",
        architecture="digits_cnn",
        arguments=ARGUMENTS,
        inputs=InputSpec(
            shape=[1, 8, 8], axes=["c", "h", "w"], value_range=[0, 1], mean=[0.3], std=[0.4]
        ),
        outputs=OutputSpec(num_classes=3),
    )
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (60, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "data.npz", images=images, labels=np.arange(60) % 3)
    np.savez(tmp_path / "few.npz", images=images[:20], labels=np.arange(20) % 3)
    np.savez(tmp_path / "unlabeled.npz", images=images)
    return tmp_path


def run(folder: Path, teacher: str, *arguments: str, data: str = "data.npz") -> Result:
    paths = ["--data", str(folder / data), "--out", str(folder / "out")]
    return CliRunner().invoke(app, ["export", teacher, *paths, *arguments])


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_table_and_json_say_the_same(folder: Path) -> None:
    arguments = ["--eval-data", str(folder / "data.npz")]
    text = run(folder, str(folder / "teacher"), *arguments)
    assert text.exit_code == 0, text.stderr
    found = run(folder, str(folder / "teacher"), *arguments, "--overwrite", "--json")
    assert found.exit_code == 0, found.stderr
    facts = json.loads(found.stdout)
    assert facts["profile"] == "standard"
    assert facts["samples"] == 60
    assert facts["tensor_bytes"] == (folder / "out" / "dfkd_meta.safetensors").stat().st_size
    assert facts["manifest_bytes"] == (folder / "out" / "dfkd_meta.json").stat().st_size
    for record in facts["records"]:
        assert record["id"] in text.stdout
    stored = {key: array.nbytes for key, array in read_sidecar(folder / "out").tensors.items()}
    assert sum(record["bytes"] for record in facts["records"]) == sum(stored.values())
    assert f"{100 * facts['accuracy']:.2f} %" in text.stdout
    assert f"{facts['tensor_bytes']:,} bytes" in text.stdout


def test_a_builtin_name_with_weights(folder: Path) -> None:
    weights = str(folder / "teacher" / "model.safetensors")
    found = run(folder, "digits_cnn", "--weights", weights, "--profile=full", *INPUTS, *BARE)
    assert found.exit_code == 0, found.stderr
    manifest = read_sidecar(folder / "out").manifest
    assert (manifest.profile, manifest.inputs.mean, manifest.inputs.axes) == (
        "full",
        [0.3],
        ["c", "h", "w"],
    )


def test_configuration_file_and_assignments(folder: Path) -> None:
    (folder / "run.toml").write_text('profile = "full"\nmin_count = 15\nlimit = 50\n')
    config = ["--config", str(folder / "run.toml")]
    found = run(folder, str(folder / "teacher"), *config, "--set=min_count=12", "--set=seed=5")
    assert found.exit_code == 0, found.stderr
    manifest = read_sidecar(folder / "out").manifest
    assert manifest.profile == "full"
    assert manifest.privacy.min_group_size == 12
    assert (manifest.provenance.seed, manifest.provenance.samples) == (5, 50)


def test_bare_weights_need_an_input_block_and_the_hint_can_be_typed(folder: Path) -> None:
    weights = ["--weights", str(folder / "teacher" / "model.safetensors")]
    for given in (0, 1, 3):
        found = run(folder, "digits_cnn", *weights, *INPUTS[:given], *BARE)
        assert found.exit_code == 2
        missing = INPUTS[given].removeprefix("--set=").partition("=")[0]
        assert f"{missing} is missing" in found.stderr
        assert "no default normalization" in found.stderr
        assert f"--set '{missing}=" in found.stderr
    assert files(folder) == ["data.npz", "few.npz", "teacher", "unlabeled.npz"]


def test_without_labels(folder: Path) -> None:
    found = run(folder, str(folder / "teacher"), data="unlabeled.npz")
    assert found.exit_code == 0, found.stderr
    assert "no labels" in found.stderr
    assert read_sidecar(folder / "out").manifest.profile == "custom"


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--profile=large"], 2, "'profile'"),
        (["--set=profil=full"], 2, "there is no option 'profil'"),
        (["--set=min_count=0"], 2, "'min_count'"),
        (["--set=batch_size=0"], 2, "'batch_size'"),
        (["--set=limit=0"], 2, "'limit'"),
        (["--set=limit=5"], 1, "fewer"),
        (["--set=temperature=0"], 2, "'temperature'"),
        (["--set=temperature=1e-300"], 2, "'temperature'"),
        (["--set=dataset_name=\x1b[31m"], 2, "'dataset_name'"),
        (["--set=temperature"], 2, "not key=value"),
        (["--set=min_count=21"], 1, "class 0: 20"),
        (["--config=nowhere.toml"], 2, "cannot read the configuration"),
        (["--eval-data=nowhere"], 1, "no data of that name"),
        (["--device=abacus"], 2, "no device"),
        (["--weights=x.safetensors"], 2, "own weights"),
        (["--set=created=yesterday"], 2, "'created'"),
        (["--set=records=[{kind='momentz'}]"], 2, "no statistic named 'momentz'"),
        (["--set=records=[{kind='moments', taps=['nowhere'], reduction='unit'}]"], 1, "no tap"),
        (["--set=records=[{kind='moments', taps=['output']}]"], 1, "reduction"),
        (["--set=records=[{kind='moments', taps=['output'], reduction='sum'}]"], 2, "records.0"),
        (["--set=records=[{kind='moments', taps=['input'], reduction='sum'}]"], 2, "records.0"),
        (["--set=records=[{kind='class_similarity', params={module=5}}]"], 1, "where: 5"),
        (["--set=records=[{kind='dropout', params={sites=['fc']}}]"], 1, "no dropout layer"),
    ],
)
def test_every_wrong_argument(folder: Path, arguments: list[str], code: int, says: str) -> None:
    before = files(folder)
    found = run(folder, str(folder / "teacher"), *arguments)
    assert says in found.stderr, found.output
    assert found.exit_code == code
    assert "Traceback" not in found.output
    assert files(folder) == before


@pytest.mark.parametrize(
    ("teacher", "data", "extra", "code", "says"),
    [
        ("nowhere", "data.npz", INPUTS, 2, "neither a model folder"),
        ("lenet6", "data.npz", INPUTS, 2, "lenet5"),
        ("digits_cnn", "data.npz", [*INPUTS, *BARE, "--weights=none.safetensors"], 1, "not exist"),
        ("no.such:thing", "data.npz", INPUTS, 2, "no.such"),
        ("teacher", "nowhere.npz", [], 1, "does not exist"),
        ("teacher", "few.npz", [], 1, "class 0: 7"),
        ("teacher", "data.npz", ["--set=inputs.shape=[1,8]"], 2, "inputs."),
    ],
)
def test_wrong_teacher_or_data(
    folder: Path, teacher: str, data: str, extra: list[str], code: int, says: str
) -> None:
    before = files(folder)
    where = str(folder / teacher) if teacher == "teacher" else teacher
    found = run(folder, where, *extra, data=data)
    assert says in found.stderr, found.output
    assert found.exit_code == code
    assert "Traceback" not in found.output
    assert files(folder) == before


@pytest.mark.parametrize("bad", ["shape='x'", "shape=[0]", "std=[0.0]", "mean='white'"])
def test_malformed_input_block(folder: Path, bad: str) -> None:
    weights = ["--weights", str(folder / "teacher" / "model.safetensors")]
    found = run(folder, "digits_cnn", *weights, *INPUTS, f"--set=inputs.{bad}", *BARE)
    assert found.exit_code == 2
    assert f"option 'inputs.{bad.partition('=')[0]}" in found.stderr


def test_output_folder_is_not_overwritten_unasked(folder: Path) -> None:
    (folder / "out").mkdir()
    (folder / "out" / "mine.txt").write_text("mine")
    found = run(folder, str(folder / "teacher"))
    assert found.exit_code == 2
    assert "not empty" in found.stderr
    assert files(folder / "out") == ["mine.txt"]


def test_in_place(folder: Path) -> None:
    paths = ["--data", str(folder / "data.npz"), "--out", str(folder / "teacher")]
    found = CliRunner().invoke(app, ["export", str(folder / "teacher"), *paths])
    assert found.exit_code == 0, found.stderr
    assert read_sidecar(folder / "teacher").manifest.profile == "standard"


def test_a_warning_is_heard_under_quiet(folder: Path) -> None:
    """The teacher of these tests was never trained."""
    result = run(folder, str(folder / "teacher"), "-q")
    assert result.exit_code == 0
    assert "WARNING: always naming" in result.stderr
    assert "batches of" not in result.stderr
