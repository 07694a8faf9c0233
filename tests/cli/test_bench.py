"""``dfkd-meta bench`` as users run it: to the end, killed in the middle, and asked for nonsense."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from dfkd_meta.bench.cells import runs_of
from dfkd_meta.bench.grid import read_grid
from dfkd_meta.data import open_data
from dfkd_meta_cli.main import app
from tests.support.small_recipes import write_blobs

Published = Callable[[str, str], Path]
ROOT = Path(__file__).parents[2]
run = CliRunner().invoke
GRID = """
title = "Blobs"
threads = 1
seeds = [0, 1]
[teachers.blobs]
published = { full = "FOLDER" }
data = "blobs.npz"
benchmark = "mnist"
[budgets.tiny]
images = 40
training = { steps = 6, batch_size = 32 }
[methods.recorded]
[methods.noise]
"""
COLUMNS = ("method", "accuracy_mean", "accuracy_lowest", "images", "student_steps", "finished")


@pytest.fixture
def grid(published: Published, tmp_path: Path) -> Path:
    write_blobs(tmp_path)
    file = tmp_path / "grid.toml"
    file.write_text(GRID.replace("FOLDER", str(published("digits_cnn", "full"))))
    return file


def rows(out: Path) -> list[list[str]]:
    """What two benches of the same grid must agree on; times and memory are the machine's."""
    with (out / "table.csv").open(newline="") as file:
        return [[row[name] for name in COLUMNS] for row in csv.DictReader(file)]


def test_a_killed_bench_goes_on_to_the_same_table(grid: Path, tmp_path: Path) -> None:
    grid.write_text(grid.read_text().replace("seeds = [0, 1]", "seeds = [0]"))
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    done = run(app, ["bench", str(grid), "--out", str(whole), "--device", "cpu"])
    assert done.exit_code == 0, done.output
    assert "[2/2, about 0 s left]" in done.stderr
    assert done.stdout.startswith("# Blobs")
    assert done.stdout.strip() == (whole / "table.md").read_text().strip()
    assert "88.01 (lenet5 -> lenet5_half) [1]" in done.stdout
    assert [row[0] for row in rows(whole)] == ["recorded", "noise"]
    assert {row[-1] for row in rows(whole)} == {"1"}
    records = [json.loads(line) for line in (whole / "results.jsonl").read_text().splitlines()]
    for record in records:
        assert record["result"]["cpu_seconds"]["training"] > 0
        assert record["result"]["peak_memory_mb"] > 50
        assert record["machine"]["threads"] == 1
    assert not list((whole / "runs").iterdir())

    command = [sys.executable, "-m", "dfkd_meta_cli", "bench", str(grid), "--out", str(killed)]
    process = subprocess.Popen(
        [*command, "--device", "cpu"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    journal, runs = killed / "results.jsonl", killed / "runs"
    deadline = time.monotonic() + 300
    while not (journal.exists() and any(runs.iterdir())):  # one is done, the next has begun
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert journal.read_bytes().count(b"\n") == 1
    with journal.open("ab") as file:
        file.write(b'{"key": "torn')
    done = run(app, ["bench", str(grid), "--out", str(killed), "--device", "cpu"])
    assert done.exit_code == 0, done.output
    assert "torn" in done.stderr
    assert "1 of 2 runs are done" in done.stderr
    assert rows(killed) == rows(whole)


def test_json_and_table_show_what_there_is(grid: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = ["bench", str(grid), "--out", str(out), "--device", "cpu"]
    nothing = run(app, [*command, "--table"])
    assert nothing.exit_code == 2
    assert "no results" in nothing.stderr
    some = run(app, [*command, "--only", "method=noise", "--only", "seed=1", "--json", "-q"])
    assert some.exit_code == 0, some.output
    (record,) = json.loads(some.stdout)
    assert record["cell"]["seed"] == 1
    picked = run(app, [*command, "--table", "--only", "method=noise"])
    assert picked.exit_code == 2
    assert "--table shows all there is" in picked.stderr
    shown = run(app, [*command, "--table"])
    assert shown.exit_code == 0
    assert "**3 runs are still to be made.**" in shown.stdout
    grid.write_text(grid.read_text().replace("seeds = [0, 1]", "seeds = [1]"))
    assert "**1 runs" in run(app, [*command, "--table"]).stdout


def test_a_run_that_fails_is_told_from_one_that_does_not(grid: Path, tmp_path: Path) -> None:
    text = grid.read_text().replace("seeds = [0, 1]", "seeds = [0]")
    grid.write_text(text.replace("[methods.recorded]", "[methods.scratch]\noptions.data = 'gone'"))
    done = run(app, ["bench", str(grid), "--out", str(tmp_path / "out"), "--device", "cpu"])
    assert done.exit_code == 1
    assert "`scratch`: failed:" in done.stdout
    assert "gone" in done.stdout
    assert {row[0]: row[-1] for row in rows(tmp_path / "out")} == {"scratch": "0", "noise": "1"}


def test_a_budget_of_seconds_is_spent_and_its_counts_are_kept(grid: Path, tmp_path: Path) -> None:
    old = "images = 40\ntraining = { steps = 6, batch_size = 32 }"
    text = grid.read_text()
    assert old in text
    grid.write_text(text.replace(old, "cpu_seconds = 0.5\ntraining = { batch_size = 32 }"))
    out = tmp_path / "timed"
    command = ["bench", str(grid), "--out", str(out), "--device", "cpu", "-q"]
    done = run(app, [*command, "--only", "method=recorded", "--only", "seed=0"])
    assert done.exit_code == 0, done.output
    record = json.loads((out / "results.jsonl").read_text())
    assert record["budget"]["cpu_seconds"] == 0.5
    assert record["config"]["training"]["steps"] == record["result"]["student_steps"] >= 1
    assert record["result"]["planning_cpu_seconds"] > 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["bench", "absent.toml", "--out", "OUT"],
        ["bench", "GRID"],
        ["bench", "GRID", "--out", "OUT", "--only", "noise"],
        ["bench", "GRID", "--out", "OUT", "--only", "method=none"],
        ["bench", "GRID", "--out", "OUT", "--jobs", "0"],
        ["bench", "GRID", "--out", "OUT", "--jobs", "100000"],
        ["bench", "GRID", "--out", "OUT", "--device", "abacus"],
        ["bench", "GRID", "--out", "GRID"],
    ],
)
def test_wrong_arguments_never_give_a_traceback(
    arguments: list[str], grid: Path, tmp_path: Path
) -> None:
    places = {"GRID": str(grid), "OUT": str(tmp_path / "out")}
    result = run(app, [places.get(word, word) for word in arguments])
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == 2
    assert result.stderr.strip()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "path", sorted((ROOT / "examples" / "bench").glob("*.toml")), ids=lambda path: path.stem
)
def test_the_grids_of_the_examples_are_right(path: Path) -> None:
    grid = read_grid(path)
    runs = runs_of(grid)
    assert len({run.cell for run in runs}) == len(runs)
    assert {run.control for run in runs} == {True, False}


def test_the_quick_grid_in_miniature(tmp_path: Path) -> None:
    pytest.importorskip("sklearn", reason="needs scikit-learn (extra [data])")
    text = (ROOT / "examples" / "bench" / "quick.toml").read_text()
    small = {
        "seeds = [0, 1]": "seeds = [0]",
        "steps = 600": "steps = 30",
        "steps = 300": "steps = 9",
    }
    for old, new in small.items():
        assert old in text
        text = text.replace(old, new)
    (tmp_path / "grid.toml").write_text(text)
    command = ["bench", str(tmp_path / "grid.toml"), "--out", str(tmp_path / "out"), "-q"]
    done = run(app, [*command, "--device", "cpu", "--only", "method=noise", "--only",
                     "method=real_data"])  # fmt: skip
    assert done.exit_code == 0, done.output
    assert os.listdir(tmp_path / "out" / "runs") == []
    finished = {row[0]: row[-1] for row in rows(tmp_path / "out")}
    assert finished["noise"] == finished["real_data"] == "1"


def test_cifar_in_its_official_binary_form_becomes_one_file(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    records = random.integers(0, 256, (6, 4, 3073), dtype=np.uint8)
    records[:, :, 0] %= 10
    names = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
    for name, batch in zip(names, records, strict=True):
        batch.tofile(tmp_path / f"{name}.bin")
    script = ROOT / "examples" / "bench" / "cifar10_npz.py"
    out = tmp_path / "cifar10.npz"
    subprocess.run([sys.executable, str(script), str(tmp_path), str(out)], check=True)
    data = open_data(str(out), split="train")
    assert (len(data), len(open_data(str(out), split="test"))) == (20, 4)
    assert data.labels is not None
    assert data.labels.tolist() == records[:5, :, 0].flatten().tolist()
    pixels = torch.from_numpy(records[4, 3, 1:].reshape(3, 32, 32).astype(np.float32)) / 255
    assert torch.equal(data.read([19])[0], pixels)


def test_pairs_of_images_become_classes_of_their_own(tmp_path: Path) -> None:
    script = ROOT / "examples" / "bench" / "pairs_npz.py"
    out = tmp_path / "pairs.npz"
    blobs = str(write_blobs(tmp_path))
    subprocess.run([sys.executable, str(script), blobs, str(out)], check=True)
    with np.load(out) as arrays:
        assert arrays["train_images"].shape == (40_000, 1, 16, 16)
        labels = arrays["test_labels"]
        brightest = arrays["test_images"][:, 0].reshape(5_000, 16, 2, 8).max((1, 3))
    assert np.bincount(labels).min() > 400
    assert labels.max() == 8
    assert brightest.min() > 128  # a square on either side


def test_results_are_shown_from_a_journal_alone(grid: Path, tmp_path: Path) -> None:
    out, copy = tmp_path / "out", tmp_path / "copy"
    command = ["bench", str(grid), "--device", "cpu", "--out"]
    assert (
        run(app, [*command, str(out), "--only", "seed=0", "--only", "method=noise"]).exit_code == 0
    )
    copy.mkdir()
    shutil.copy(out / "results.jsonl", copy)
    shown = run(app, [*command, str(copy), "--table", "-q"])
    assert shown.exit_code == 0
    assert (copy / "table.csv").read_text() == (out / "table.csv").read_text()
    assert "1 results are of teachers that are not here" in shown.stderr
