"""The two halves of a distillation, put together: make inputs, train a student on them."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field

from dfkd_meta.batches import SyntheticBatch, shuffled
from dfkd_meta.config import Config
from dfkd_meta.distillation.losses import losses
from dfkd_meta.distillation.students import Student, build_student
from dfkd_meta.distillation.training import TrainingConfig, fit
from dfkd_meta.progress import Progress
from dfkd_meta.seeding import derive_seed, generator_for
from dfkd_meta.sidecar import Sidecar
from dfkd_meta.synthesis.engine import Synthesizer
from dfkd_meta.synthesis.recipe import MethodContext, Recipe, methods
from dfkd_meta.teachers import Teacher


class DistillConfig(Config):
    """Everything that decides a student, besides teacher and sidecar.

    ``options`` are those of the method, ``weights`` replaces weights of its terms by name.
    """

    method: str = "recorded"
    student: str = "half"
    seed: int = 0
    options: dict[str, Any] = Field(default_factory=dict)
    weights: dict[str, float] = Field(default_factory=dict)
    training: TrainingConfig = TrainingConfig()


def check_student(teacher: Teacher, config: DistillConfig) -> None:
    """Refuse settings that training would refuse, before minutes of synthesis.

    Raises UsageError (no such student or loss), TeacherError (it cannot be built).
    """
    losses.get(config.training.loss)
    with torch.device("meta"):
        build_student(config.student, teacher, seed=0)


def make_recipe(
    teacher: Teacher, sidecar: Sidecar, config: DistillConfig, device: torch.device
) -> Recipe:
    """The recipe of ``config.method``. Raises MethodError (needs) or UsageError (options)."""
    context = MethodContext(teacher, sidecar, device)
    return methods.get(config.method).recipe(context, config.options).reweighted(config.weights)


def make_pool(
    teacher: Teacher, recipe: Recipe, config: DistillConfig, progress: Progress | None = None
) -> SyntheticBatch:
    """All synthetic inputs of a run, on the CPU."""
    generator = generator_for(config.seed, "synthesis")
    return Synthesizer(teacher, recipe, generator).make_pool(progress)


def train_student(
    teacher: Teacher,
    pool: SyntheticBatch,
    config: DistillConfig,
    device: torch.device,
    progress: Progress | None = None,
) -> Student:
    """A fresh student trained on ``pool`` (synthetic or real) with the teacher's answers.

    The student's start, the order of the batches and their augmentation depend on ``config.seed``
    alone, so that two pools can be compared under one and the same schedule.
    """
    student = build_student(config.student, teacher, seed=derive_seed(config.seed, "student"))
    generator = generator_for(config.seed, "training")
    stream = shuffled(pool.to(device), batch_size=config.training.batch_size, generator=generator)
    taught_by = None if config.training.loss == "hard" else teacher
    fit(
        student.module.to(device),
        stream,
        config.training,
        generator,
        teacher=taught_by,
        progress=progress,
    )
    return student
