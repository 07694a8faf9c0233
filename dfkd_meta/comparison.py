"""A data-free number beside its controls: one teacher, one student schedule, several inputs to it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from dfkd_meta.batches import SyntheticBatch
from dfkd_meta.consumer.pipeline import DistillConfig, make_pool, make_recipe, train_student
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
    names: Sequence[str],
    config: DistillConfig,
    progress: Progress | None = None,
) -> list[Row]:
    """Train one student per name, each on the same schedule, and measure all on the test split.

    ``data`` is (train, test); the training split feeds the two real-data controls only. ``names``
    are methods, or ``REAL_LABELS`` and ``REAL_KD``. Accuracy is that of the last step.
    """
    return [_row(teacher, sidecar, data, name, config, progress or Silent()) for name in names]


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
        config = config.model_copy(update={"method": name})
        pool = make_pool(teacher, make_recipe(teacher, sidecar, config, device), config, progress)
    if name == REAL_LABELS:
        hard = config.training.model_copy(update={"loss": "hard"})
        config = config.model_copy(update={"training": hard})
    made = time.perf_counter()
    student = train_student(teacher, pool, config, device, progress)
    done = time.perf_counter()
    score = accuracy(student.module, test, teacher.inputs)
    return Row(name, score, len(pool), made - started, done - made)
