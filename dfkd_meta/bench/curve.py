"""How good the student of a run is on the way: measured on test data, never acted upon."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypedDict

from dfkd_meta.bench.journal import write_text
from dfkd_meta.consumer.run import Distillation
from dfkd_meta.data import Dataset
from dfkd_meta.distillation.evaluation import accuracy
from dfkd_meta.sidecar.manifest import InputSpec


class Point(TypedDict):
    """Accuracy in [0, 1] after some student steps, and what the run had cost by then."""

    steps: int
    cpu_seconds: float
    seconds: float
    accuracy: float


class Curve:
    """``points`` looks at a run, evenly spaced in its student steps, the last after the last step.

    To be called wherever the run can be saved. What it sees is kept in ``file``, so that a run that
    goes on after a kill keeps what was seen before; the seconds of the run do not count the looks.
    The student is seen as it would be if the run ended there: with its moving average, if any.
    """

    def __init__(self, points: int, file: Path, test: Dataset, inputs: InputSpec) -> None:
        self.points = points
        self.file = file
        self.test = test
        self.inputs = inputs
        self.found: list[Point] = json.loads(file.read_text()) if file.exists() else []

    def __call__(self, run: Distillation) -> None:
        done, steps = run.trainer.steps_done, run.config.training.steps
        due = done * self.points // steps > (done - 1) * self.points // steps
        if not done or not due or any(point["steps"] == done for point in self.found):
            return
        run.settle()
        with run.trainer.finished() as student:
            score = accuracy(student, self.test, self.inputs)
        seen: Point = {
            "steps": done,
            "cpu_seconds": sum(run.cpu_seconds.values()),
            "seconds": sum(run.seconds.values()),
            "accuracy": score,
        }
        self.found.append(seen)
        write_text(self.file, json.dumps(self.found))
