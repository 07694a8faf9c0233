"""A data-free number beside its controls: one teacher, one schedule, several inputs."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from dfkd_meta.batches import SyntheticBatch
from dfkd_meta.consumer.pipeline import (
    DistillConfig,
    check_student,
    make_pool,
    make_recipe,
    train_student,
)
from dfkd_meta.data import Dataset
from dfkd_meta.distillation.evaluation import accuracy
from dfkd_meta.producer.train import real_pool
from dfkd_meta.progress import Progress, Silent
from dfkd_meta.sidecar import Sidecar
from dfkd_meta.teachers import Teacher

REAL_LABELS = "real data, labels only"
REAL_KD = "real data, KD"


@dataclass(frozen=True)
class Row:
    """One line of a comparison: test accuracy (a fraction) and wall seconds of each part."""

    name: str
    accuracy: float
    images: int
    synthesis_seconds: float
    training_seconds: float


def compare(
    teacher: Teacher,
    sidecar: Sidecar,
    data: tuple[Dataset, Dataset],
    students: Mapping[str, Mapping[str, Any]],
    config: DistillConfig,
    progress: Progress | None = None,
) -> Iterator[Row]:
    """Train one student after the other on the same schedule, and measure each on the test split.

    ``data`` is (train, test); the training split feeds the two real-data controls only.
    ``students`` maps a method to its options, or is ``REAL_LABELS`` or ``REAL_KD`` without any.
    Accuracy is that of the last step.
    """
    for name, options in students.items():
        if name in (REAL_LABELS, REAL_KD):
            named = config
        else:
            named = config.model_copy(update={"method": name, "options": dict(options)})
        check_student(teacher, named)
        yield _row(teacher, sidecar, data, name, named, progress or Silent())


def _row(
    teacher: Teacher,
    sidecar: Sidecar,
    data: tuple[Dataset, Dataset],
    name: str,
    config: DistillConfig,
    progress: Progress,
) -> Row:
    train, test = data
    device = torch.device("cpu")
    progress.step(f"student by: {name}")
    started = time.perf_counter()
    if name in (REAL_LABELS, REAL_KD):
        pool: SyntheticBatch = real_pool(train, teacher.inputs)
    else:
        pool = make_pool(teacher, make_recipe(teacher, sidecar, config, device), config, progress)
    if name == REAL_LABELS:
        hard = config.training.model_copy(update={"loss": "hard"})
        config = config.model_copy(update={"training": hard})
    made = time.perf_counter()
    student = train_student(teacher, pool, config, device, progress)
    done = time.perf_counter()
    score = accuracy(student.module, test, teacher.inputs)
    return Row(name, score, len(pool), made - started, done - made)
