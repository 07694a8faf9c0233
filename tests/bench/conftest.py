"""A small grid over a published teacher, and workers that answer without working."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from dfkd_meta.bench import run as run_module
from dfkd_meta.bench.grid import read_grid
from dfkd_meta.bench.places import Places
from dfkd_meta.bench.run import Bench
from dfkd_meta.bench.tasks import Answer, CellTask, TeacherTask
from dfkd_meta.bench.teachers import Teachers
from dfkd_meta.progress import Silent
from tests.support.small_recipes import write_blobs

GRID = """
title = "Blobs"
seeds = [0, 1]
threads = 1

[teachers.blobs]
published = { full = "${TEACHER}" }
data = "blobs.npz"

[budgets.tiny]
images = 40
training = { steps = 6, batch_size = 32 }

[methods.recorded]
[methods.noise]
[methods.scratch]
"""


def own_net(num_classes: int) -> nn.Module:
    """A teacher of the user's own code, for the blobs."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, num_classes))


@pytest.fixture
def grid_file(published: Callable[[str, str], Path], tmp_path: Path) -> Path:
    """A grid file with its data beside it; ``${TEACHER}`` is a published folder."""
    write_blobs(tmp_path)
    file = tmp_path / "grid.toml"
    file.write_text(GRID)
    return file


@pytest.fixture
def environment(published: Callable[[str, str], Path]) -> dict[str, str]:
    import os

    return {**os.environ, "TEACHER": str(published("digits_cnn", "full"))}


@pytest.fixture
def bench(grid_file: Path, environment: dict[str, str], tmp_path: Path) -> Bench:
    return Bench(read_grid(grid_file), tmp_path / "out", Places(tmp_path, environment))


def changed(bench: Bench, file: Path, old: str, new: str) -> Bench:
    """The same bench after an edit of its grid file."""
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    return replace(bench, grid=read_grid(file))


def facts(accuracy: float, **more: Any) -> dict[str, Any]:
    """What a finished cell reports."""
    return {
        "teacher": {"architecture": "digits_cnn", "accuracy": 0.99},
        "student": {"architecture": "digits_cnn", "parameters": 10},
        "counts": {"images": 40, "turn": None, "steps": 6},
        "result": {
            "accuracy": accuracy,
            "agreement_on_inputs": 0.5,
            "images": 40,
            "student_steps": 6,
            "seconds": {"synthesis": 1.0, "training": 2.0},
            "cpu_seconds": {"synthesis": 0.5, "training": 1.5},
            "peak_memory_mb": 300.0,
            **more,
        },
        "notes": [],
        "machine": {
            "device": "cpu",
            "gpu": None,
            "processor": "Example CPU",
            "cores": 8,
            "threads": 1,
            "torch": "2.13.0",
            "dfkd_meta": "0.1.0",
        },
    }


class FakeWorkers:
    """Answers at once; ``done`` lists the cells asked for.

    ``answers`` maps a method to another answer, ``before`` to what is done before it answers.
    """

    def __init__(self) -> None:
        self.done: list[CellTask] = []
        self.answers: dict[str, Answer | type[BaseException]] = {}
        self.before: dict[str, Callable[[], None]] = {}
        self.teachers_made = 0

    def __call__(self, threads: int, environment: dict[str, str]) -> FakeWorkers:
        self.environment = environment
        return self

    def __enter__(self) -> FakeWorkers:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        return None

    def do(self, task: CellTask | TeacherTask, place: Path) -> Answer:
        import torch

        if isinstance(task, TeacherTask):
            self.teachers_made += 1
            places = Places(Path(task.folder), self.environment)
            made = Teachers(task.grid, Path(task.out), places)
            made.make(task.name, task.profile, device=torch.device("cpu"), progress=Silent())
            return Answer(status="done")
        self.done.append(task)
        self.before.get(task.config.method, lambda: None)()
        answer = self.answers.get(task.config.method)
        if isinstance(answer, type):
            raise answer
        score = 0.5 + task.config.seed / 10
        return answer or Answer(status="done", facts=facts(score))

    @property
    def methods(self) -> list[tuple[str, int]]:
        return [(task.config.method, task.config.seed) for task in self.done]


@pytest.fixture
def fake_workers(monkeypatch: pytest.MonkeyPatch) -> FakeWorkers:
    fake = FakeWorkers()
    monkeypatch.setattr(run_module, "Workers", fake)
    return fake
