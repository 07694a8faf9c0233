"""The main job in miniature: a teacher, its sidecar, and students with and without the data."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import Field

from dfkd_meta.config import Config
from dfkd_meta.consumer.pipeline import DistillConfig
from dfkd_meta.consumer.run import run_method
from dfkd_meta.data import open_data
from dfkd_meta.distillation.config import TrainingConfig
from dfkd_meta.distillation.evaluation import accuracy
from dfkd_meta.producer.config import ExportConfig, Profile
from dfkd_meta.producer.export import export
from dfkd_meta.producer.train import TrainConfig, train_network
from dfkd_meta.progress import Progress, Silent
from dfkd_meta.sidecar import MANIFEST_FILE, TENSOR_FILE, read_sidecar
from dfkd_meta.synthesis.recipe import methods
from dfkd_meta.teachers import teacher_from_sidecar


class DemoConfig(Config):
    """The data set and the sizes of the demo; every name is one the other verbs know.

    ``students`` are methods with their options (those that use data get ``data``); all are trained
    on the same schedule.
    """

    data: str = "digits"
    architecture: str = "digits_cnn"
    student: str = "half"
    profile: Profile = "full"
    seed: int = 0
    teacher_training: TrainingConfig = TrainingConfig(
        losses={"hard": 1.0}, steps=600, batch_size=64, mixup=0, cutmix=0
    )
    student_training: TrainingConfig = TrainingConfig(steps=1_000, batch_size=128)
    students: dict[str, dict[str, Any]] = Field(
        default_factory=lambda: {
            "scratch": {},
            "real_data": {},
            "recorded": {},
            "noise": {"images": 4_000},
        }
    )


@dataclass(frozen=True)
class Row:
    """One student: its method, test accuracy (a fraction) of the last step, inputs and seconds."""

    method: str
    accuracy: float
    images: int
    seconds: float


@dataclass(frozen=True)
class DemoResult:
    """What the demo prints: the teacher's accuracy, the rows, and the size of the sidecar."""

    folder: Path
    teacher_accuracy: float
    rows: list[Row]
    sidecar_bytes: int
    seconds: float


def run_demo(
    folder: Path,
    config: DemoConfig,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> DemoResult:
    """Train, export and validate a teacher into ``folder``, then compare students of it.

    The data-free student sees teacher and sidecar as read back from disk, nothing else.
    """
    progress = progress or Silent()
    started = time.perf_counter()
    train, test = open_data(config.data, split="train"), open_data(config.data, split="test")

    progress.step(
        f"publisher: training {config.architecture} on {len(train):,} {train.name} images"
    )
    training = TrainConfig(seed=config.seed, training=config.teacher_training)
    trained = train_network(config.architecture, train, training, progress=progress)
    progress.step(f"publisher: exporting the sidecar, profile {config.profile}")
    settings = ExportConfig(profile=config.profile, seed=config.seed)
    export(
        trained,
        train,
        settings,
        folder,
        evaluation=test,
        overwrite=overwrite,
        progress=progress,
    )

    progress.step("consumer: validating the sidecar and loading the teacher from disk")
    sidecar = read_sidecar(folder)
    teacher = teacher_from_sidecar(folder, sidecar)
    rows = []
    for method, options in config.students.items():
        uses_data = "data" in methods.get(method).config.model_fields
        run = DistillConfig(
            method=method,
            student=config.student,
            seed=config.seed,
            options={"data": config.data, **options} if uses_data else options,
            training=config.student_training,
        )
        progress.step(f"student by: {method}")
        outcome = run_method(teacher, sidecar, run, torch.device("cpu"), progress=progress)
        score = accuracy(outcome.student.module, test, teacher.inputs)
        rows.append(Row(method, score, outcome.images, sum(outcome.seconds.values())))
    size = sum((folder / name).stat().st_size for name in (MANIFEST_FILE, TENSOR_FILE))
    return DemoResult(
        folder=folder,
        teacher_accuracy=accuracy(teacher.module, test, teacher.inputs),
        rows=rows,
        sidecar_bytes=size,
        seconds=time.perf_counter() - started,
    )
