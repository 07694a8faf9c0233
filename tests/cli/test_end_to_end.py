"""The whole way as users walk it: train, export, publish, distill by id from a Hub, evaluate."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dfkd_meta_cli.main import app
from tests.support.hub_fixture import REPO, point_client_at
from tests.support.loopback_hub import LoopbackHub
from tests.support.small_recipes import write_blobs

Published = Callable[[str, str], Path]
run = CliRunner().invoke
QUICK = [
    "--set", "options.drawn_batch=60", "--set", "options.steps=1",
    "--set", "training.steps=10", "--set", "training.batch_size=32",
]  # fmt: skip


def test_publish_then_distill_by_id_in_another_process(
    published: Published, loopback_hub: LoopbackHub, tmp_path: Path
) -> None:
    folder = published("digits_cnn", "full")
    sent = run(app, ["publish", str(folder), "--repo", REPO])
    assert sent.exit_code == 0, sent.output
    out = tmp_path / "student"
    command = [sys.executable, "-m", "dfkd_meta_cli", "distill", REPO, "--out", str(out), *QUICK]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    commit = loopback_hub.repos[REPO].history[-1]
    facts = json.loads((out / "run.json").read_text())
    assert facts["teacher"]["repo_id"] == REPO
    assert facts["teacher"]["commit"] == commit
    card = (out / "README.md").read_text()
    assert f"base_model: {REPO}" in card
    assert f"dfkd-meta distill {REPO}@{commit}" in card
    steps = [line for line in done.stderr.splitlines() if line.startswith(">")]
    assert [word for step in steps for word in ("resolving", "digests", "synth") if word in step]
    assert "agreement with the teacher" in done.stdout


@pytest.mark.parametrize(
    ("name", "code", "text"),
    [
        ("alice/absent", 1, "alice/absent"),
        (f"{REPO}@no-such-branch", 1, "no-such-branch"),
        ("not an id", 2, "not an id"),
    ],
)
def test_distill_says_what_is_missing_and_leaves_nothing(
    name: str, code: int, text: str, published: Published, loopback_hub: LoopbackHub, tmp_path: Path
) -> None:
    run(app, ["publish", str(published("digits_cnn", "full")), "--repo", REPO])
    result = run(app, ["distill", name, "--out", str(tmp_path / "student")])
    assert result.exit_code == code, result.output
    assert text in result.stderr
    assert "Traceback" not in result.output
    assert not (tmp_path / "student").exists()


def test_a_repository_without_a_sidecar(loopback_hub: LoopbackHub, tmp_path: Path) -> None:
    loopback_hub.seed(REPO, {"README.md": b"no sidecar here"})
    result = run(app, ["distill", REPO, "--out", str(tmp_path / "student")])
    assert result.exit_code == 1
    assert "sidecar" in result.stderr
    assert list(tmp_path.glob("*student*")) == []


def test_a_weight_file_changed_after_publication(
    published: Published, loopback_hub: LoopbackHub, tmp_path: Path
) -> None:
    folder = published("digits_cnn", "full")
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    files["model.safetensors"] = files["model.safetensors"][:-1] + b"\x01"
    loopback_hub.seed(REPO, files)
    result = run(app, ["distill", REPO, "--out", str(tmp_path / "student")])
    assert result.exit_code == 1
    assert "model.safetensors" in result.stderr
    assert list(tmp_path.glob("*student*")) == []


def test_a_budget_decides_the_steps(published: Published, tmp_path: Path) -> None:
    teacher = str(published("digits_cnn", "minimal"))
    command = ["distill", teacher, "--out", str(tmp_path / "student"), "--method", "noise"]
    done = run(app, [*command, "--budget", "0.5s", "--set", "training.batch_size=32", "--json"])
    assert done.exit_code == 0, done.output
    facts = json.loads(done.stdout)
    assert 1 <= facts["config"]["training"]["steps"] < 4_000  # which it is without
    assert f"training.steps={facts['config']['training']['steps']}" in facts["command"]
    wrong = run(app, [*command, "--budget", "soon", "--overwrite"])
    assert wrong.exit_code == 2
    assert "no duration" in wrong.stderr


def test_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    point_client_at("http://127.0.0.1:9", tmp_path / "home", monkeypatch)
    result = run(app, ["distill", REPO, "--out", str(tmp_path / "student")])
    assert result.exit_code == 3
    assert list(tmp_path.glob("*student*")) == []


def test_train_export_validate_distill_evaluate_on_arrays(tmp_path: Path) -> None:
    data = str(write_blobs(tmp_path))
    teacher, published, student = (
        str(tmp_path / name) for name in ("teacher", "published", "student")
    )
    commands = [
        ["train", "digits_cnn", "--data", data, "--out", teacher, "--set", "training.steps=40"],
        ["export", teacher, "--data", data, "--out", published, "--profile", "full"],
        ["validate", published, "--strict"],
        ["inspect", published],
        ["layers", published],
        ["distill", published, "--out", student, "--eval-data", data, *QUICK],
        ["evaluate", student, "--data", data],
    ]
    for command in commands:
        result = run(app, command)
        assert result.exit_code == 0, (command, result.output)
    again = run(app, commands[0])
    assert again.exit_code == 2
    assert "not empty" in again.stderr
    over = ["--out", str(tmp_path), "--overwrite"]
    for command in (["distill", published, *over, *QUICK], [*commands[0][:4], *over]):
        refused = run(app, command)
        assert refused.exit_code == 2
        assert "would replace what is needed" in refused.stderr
    measured = json.loads(run(app, ["evaluate", student, "--data", data, "--json"]).stdout)
    facts = json.loads((tmp_path / "student" / "run.json").read_text())
    assert measured["accuracy"] == facts["result"]["accuracy"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "digits_cnn", "--data", "DATA"],
        ["train", "digits_cnn", "--data", "digits", "--eval-data", "DATA"],
        ["export", "FOLDER", "--data", "DATA"],
        ["distill", "FOLDER", "--eval-data", "DATA"],
        ["distill", "FOLDER", "--method", "real_data", "--set", "options.data=DATA"],
        ["demo", "--set", "data=DATA"],
        ["demo", "--set", "students.real_data.data=DATA"],
        ["demo", "--config", "CONFIG"],
    ],
)
def test_data_named_with_a_split_are_not_overwritten(
    arguments: list[str], published: Published, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "data.npz").write_bytes(b"")
    (out / "run.toml").write_text("")
    places = {
        "FOLDER": str(published("digits_cnn", "full")),
        "DATA": f"{out / 'data.npz'}#test",
        "CONFIG": str(out / "run.toml"),
    }
    for name, place in places.items():
        arguments = [word.replace(name, place) for word in arguments]
    result = run(app, [*arguments, "--out", str(out), "--overwrite"])
    assert result.exit_code == 2, result.output
    assert "would replace what is needed" in result.stderr
    assert (out / "data.npz").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["distill", ".", "--out", "OUT"],
        ["distill", "FOLDER", "--out", "OUT", "--method", "none"],
        ["distill", "FOLDER", "--out", "OUT", "--student", "7"],
        ["distill", "FOLDER", "--out", "OUT", "--student", "nan"],
        ["distill", "FOLDER", "--out", "OUT", "--device", "abacus"],
        ["distill", "FOLDER", "--out", "OUT", "--device", "meta"],
        ["distill", "FOLDER", "--out", "OUT", "--config", "absent.toml"],
        ["distill", "FOLDER", "--out", "OUT", "--set", "options=3"],
        ["distill", "FOLDER", "--out", "OUT", "--set", "options.batch_size=0"],
        ["distill", "FOLDER", "--out", "OUT", "--set", "weights.none=1"],
        ["distill", "FOLDER", "--out", "OUT", "--set", "training.losses.none=1"],
        ["distill", "FOLDER", "--out", "OUT", "--eval-data", "absent"],
        ["distill", "FOLDER", "--out", "FOLDER"],
        ["distill", "FOLDER", "--out", "FOLDER", "--overwrite"],
        ["distill", "FOLDER"],
        ["train", "lenet9", "--data", "digits", "--out", "OUT"],
        ["train", "digits_cnn", "--data", "absent.npz", "--out", "OUT"],
        ["train", "digits_cnn", "--data", "FOLDER", "--out", "OUT"],
        ["train", "digits_cnn", "--data", "digits", "--out", "OUT", "--set", "shape=[1,0,8]"],
        ["train", "digits_cnn", "--data", "digits", "--out", "OUT", "--set", "shape=[8,8]"],
        ["train", "digits_cnn", "--data", "digits", "--out", "OUT", "--set", "std=[0.0]"],
        ["train", "digits_cnn", "--data", "digits", "--out", "OUT", "--set", "mean=[1,2,3]"],
        ["train", "digits_cnn", "--data", "digits", "--out", "OUT", "--set", "training.losses.k=1"],
        ["train", "digits_cnn", "--data", "digits", "--out", "OUT", "--set", "label_names=[\"a\"]"],
        ["train", "digits_cnn", "--data", "digits", "--out", "OUT", "--set", "label_names=[\"\"]"],
        ["demo", "--set", "student=none", "--set", "teacher_training.steps=1"],
        ["demo", "--set", "architecture=none"],
        ["demo", "--set", "profile=huge"],
        ["list", "nothing"],
        ["nothing"],
    ],
)  # fmt: skip
def test_wrong_arguments_never_give_a_traceback(
    arguments: list[str], published: Published, tmp_path: Path
) -> None:
    places = {"FOLDER": str(published("digits_cnn", "full")), "OUT": str(tmp_path / "out")}
    result = run(app, [places.get(word, word) for word in arguments])
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code in (1, 2)
    assert result.stderr.strip()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("what", ["methods", "architectures", "statistics", "losses"])
def test_lists(what: str) -> None:
    rows = json.loads(run(app, ["list", what, "--json"]).stdout)
    assert rows
    assert all(all(str(value).strip() for value in row.values()) for row in rows)


def test_the_demo_in_miniature() -> None:
    result = run(
        app,
        [
            "demo", "--json", "-q",
            "--set", "teacher_training.steps=30", "--set", "student_training.steps=10",
            "--set", "students.recorded.drawn_batch=100",
            "--set", "students.recorded.batch_size=100", "--set", "students.noise.images=100",
        ],
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    assert [row["method"] for row in facts["students"]] == [
        "scratch",
        "real_data",
        "recorded",
        "noise",
    ]
    assert facts["sidecar_bytes"] > 0
    assert facts["teacher_accuracy"] > 0.5
