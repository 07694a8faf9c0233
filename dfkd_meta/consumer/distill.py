"""``distill``: from the name of a teacher to a student on disk, without any original data."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

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
from dfkd_meta.distillation.evaluation import accuracy, agreement
from dfkd_meta.distillation.students import Student
from dfkd_meta.hub import PulledSidecar
from dfkd_meta.progress import Progress, Silent
from dfkd_meta.sidecar import Sidecar, read_sidecar
from dfkd_meta.teachers import Teacher, teacher_from_sidecar


@dataclass
class DistillRun:
    """A finished run: what went in, what came out, and how long each part took.

    ``agreement`` is the fraction of the synthetic inputs on which student and teacher name the same
    class; ``accuracy`` the student's top-1 accuracy on the evaluation data, if any was named.
    """

    pulled: PulledSidecar
    sidecar: Sidecar
    teacher: Teacher
    config: DistillConfig
    device: torch.device
    pool: SyntheticBatch
    student: Student
    agreement: float
    accuracy: float | None = None
    evaluated_on: str | None = None
    seconds: dict[str, float] = field(default_factory=dict)


def distill(
    pulled: PulledSidecar,
    config: DistillConfig,
    *,
    factory: str | None = None,
    device: torch.device | None = None,
    evaluation: Dataset | None = None,
    progress: Progress | None = None,
) -> DistillRun:
    """Make inputs from teacher and sidecar, train a student on them, and measure it.

    ``factory`` is the caller's own ``module:function`` for a teacher whose source is ``local``. The
    evaluation data are looked at after training only. Raises SidecarError, TeacherError,
    MethodError, UsageError.
    """
    progress = progress or Silent()
    device = device or torch.device("cpu")
    seconds: dict[str, float] = {}
    progress.step("checking the sidecar and its digests")
    sidecar = read_sidecar(pulled.folder)
    progress.step(f"loading the teacher {sidecar.manifest.teacher.architecture}")
    teacher = teacher_from_sidecar(pulled.folder, sidecar, factory=factory).to(device)
    check_student(teacher, config)
    recipe = make_recipe(teacher, sidecar, config, device)

    progress.step(f"synthesizing {recipe.images} inputs with method {config.method}")
    started = time.perf_counter()
    pool = make_pool(teacher, recipe, config, progress)
    seconds["synthesis"] = time.perf_counter() - started

    progress.step(f"training the student {config.student} for {config.training.steps} steps")
    started = time.perf_counter()
    student = train_student(teacher, pool, config, device, progress)
    seconds["training"] = time.perf_counter() - started

    run = DistillRun(
        pulled=pulled,
        sidecar=sidecar,
        teacher=teacher,
        config=config,
        device=device,
        pool=pool,
        student=student,
        agreement=agreement(student.module, teacher, pool.images),
        seconds=seconds,
    )
    if evaluation is not None:
        progress.step(f"evaluating on {evaluation.name} ({evaluation.split})")
        run.accuracy = accuracy(student.module, evaluation, teacher.inputs)
        run.evaluated_on = f"{evaluation.name} ({evaluation.split})"
    return run
