"""One cell, measured in this process."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from dfkd_meta.bench import measure
from dfkd_meta.bench.measure import peak_memory_mb, run_cell
from dfkd_meta.bench.tasks import CellTask
from dfkd_meta.consumer.pipeline import DistillConfig
from dfkd_meta.consumer.run import run_method
from dfkd_meta.data import open_data
from dfkd_meta.distillation.evaluation import accuracy
from dfkd_meta.errors import DataError
from dfkd_meta.sidecar import read_sidecar
from dfkd_meta.teachers import teacher_from_sidecar
from tests.support.small_recipes import write_blobs

CPU = torch.device("cpu")
CONFIG = DistillConfig.model_validate(
    {"method": "noise", "images": 30, "training": {"steps": 5, "batch_size": 16}}
)


@pytest.fixture
def task(published: Callable[[str, str], Path], tmp_path: Path) -> CellTask:
    return CellTask(
        teacher=str(published("digits_cnn", "full")),
        config=CONFIG,
        test=str(write_blobs(tmp_path)),
        place=str(tmp_path / "run"),
        device="cpu",
        threads=1,
    )


def test_the_facts_are_those_of_the_run(task: CellTask) -> None:
    facts = run_cell(task, CPU)
    sidecar = read_sidecar(Path(task.teacher))
    teacher = teacher_from_sidecar(Path(task.teacher), sidecar)
    outcome = run_method(teacher, sidecar, CONFIG, CPU)
    test = open_data(task.test, split="test")
    assert facts["result"]["accuracy"] == accuracy(outcome.student.module, test, teacher.inputs)
    assert facts["result"]["images"] == 30
    assert facts["result"]["student_steps"] == 5
    assert facts["counts"] == {"images": 30, "turn": None, "steps": 5, "batch_size": None}
    assert 0 <= facts["result"]["agreement_on_inputs"] <= 1
    assert facts["teacher"]["accuracy"] == sidecar.manifest.evaluation.accuracy  # type: ignore[union-attr]
    assert facts["machine"]["torch"] == torch.__version__
    json.dumps(facts, allow_nan=False)


def test_a_run_that_goes_on_keeps_its_counts(
    task: CellTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planned once: measured again after a kill, the counts would no longer fit the checkpoint."""
    timed = task.model_copy(update={"cpu_seconds": 0.2})
    (tmp_path / "run").mkdir()
    first = run_cell(timed, CPU)
    assert first["result"]["planning_cpu_seconds"] > 0
    monkeypatch.delattr(measure, "plan_budget")
    again = run_cell(timed, CPU)
    assert again["counts"] == first["counts"]
    assert again["result"]["accuracy"] == first["result"]["accuracy"]
    assert again["result"]["planning_cpu_seconds"] == first["result"]["planning_cpu_seconds"]


def test_test_data_that_do_not_fit_are_refused_before_the_run(
    task: CellTask, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delattr(measure, "run_method")
    np.savez(tmp_path / "more.npz", images=np.zeros((9, 8, 8), np.uint8), labels=np.arange(9))
    with pytest.raises(DataError, match="class"):
        run_cell(task.model_copy(update={"test": str(tmp_path / "more.npz")}), CPU)


def test_the_peak_is_that_of_this_process() -> None:
    """In MiB: in another unit the peak would be outside these bounds."""
    before = peak_memory_mb()
    held = torch.ones(2**26)
    size = held.numel() * 4 / 2**20
    assert max(before, size) <= peak_memory_mb() < before + 1.5 * size


def test_the_curve_is_seen_on_the_way_and_changes_nothing(task: CellTask, tmp_path: Path) -> None:
    for run in ("run", "watched"):
        (tmp_path / run).mkdir()
    plain = run_cell(task, CPU)["result"]
    watching = task.model_copy(update={"curve": 3, "place": str(tmp_path / "watched")})
    watched = run_cell(watching, CPU)["result"]
    assert plain["curve"] == []
    assert [point["steps"] for point in watched["curve"]] == [2, 4, 5]
    assert watched["curve"][-1]["accuracy"] == watched["accuracy"] == plain["accuracy"]
    seconds = [point["cpu_seconds"] for point in watched["curve"]]
    assert seconds == sorted(seconds)
    kept = json.loads((tmp_path / "watched" / "curve.json").read_text())
    assert kept == watched["curve"]
    again = run_cell(watching, CPU)["result"]  # killed after its end: the points are kept too
    assert again["curve"] == watched["curve"]
