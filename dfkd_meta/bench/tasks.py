"""What a worker process is asked to do, and the file its answer comes back in."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from dfkd_meta.bench.grid import Grid
from dfkd_meta.config import Config
from dfkd_meta.consumer.pipeline import DistillConfig
from dfkd_meta.errors import DfkdMetaError
from dfkd_meta.synthesis.recipe import SHARE


class TeacherTask(Config):
    """Make the teacher ``name`` of ``grid``, whose file lies in ``folder``, ready in ``out``."""

    kind: Literal["teacher"] = "teacher"
    grid: Grid
    folder: str
    out: str
    name: str
    profile: str
    device: str
    threads: int


class CellTask(Config):
    """Run one cell: texts in ``config`` and ``test`` are those of this machine.

    ``teacher`` is the folder with teacher and sidecar, ``place`` the folder of the run (its
    checkpoint, its plan), ``cpu_seconds`` its budget if it has one, ``curve`` how
    often the student is measured on the way.
    """

    kind: Literal["cell"] = "cell"
    teacher: str
    factory: str | None = None
    config: DistillConfig
    test: str
    place: str
    cpu_seconds: float | None = None
    share: float = SHARE
    curve: int = 0
    device: str
    threads: int


class Task(Config):
    """One of them."""

    task: TeacherTask | CellTask = Field(discriminator="kind")


class Answer(Config):
    """How it went: ``refused`` when the method cannot run on this teacher and sidecar.

    ``exit_code`` is that of the error, ``facts`` are the measurements of a finished cell.
    """

    status: Literal["done", "refused", "failed"]
    reason: str | None = None
    exit_code: int = 1
    facts: dict[str, Any] = Field(default_factory=dict)


class WorkerError(DfkdMetaError):
    """What a worker refused: its exit code is the one of the error there."""

    def __init__(self, message: str, answer: Answer) -> None:
        super().__init__(message)
        self.exit_code = answer.exit_code
