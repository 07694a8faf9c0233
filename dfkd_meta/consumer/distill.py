"""``distill``: from the name of a teacher to a student on disk, without any original data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from dfkd_meta.consumer.budget import clock_of, plan_budget
from dfkd_meta.consumer.interruption import interrupted_config
from dfkd_meta.consumer.pipeline import DistillConfig, check_names, precision_of
from dfkd_meta.consumer.run import Outcome, run_method
from dfkd_meta.data import Dataset
from dfkd_meta.distillation.config import TrainingConfig
from dfkd_meta.distillation.evaluation import accuracy, agreement, require_evaluable, some_of
from dfkd_meta.errors import UsageError
from dfkd_meta.hub import PulledSidecar, resolve_source
from dfkd_meta.progress import Progress, Silent
from dfkd_meta.sidecar import Sidecar, read_sidecar
from dfkd_meta.teachers import Teacher, oddities, teacher_from_sidecar


@dataclass(frozen=True)
class DistillRun:
    """A finished run: what went in and what came out.

    ``agreement`` is the fraction of the inputs kept (of many, of 10,000) on which student and
    teacher name the same class; ``accuracy`` the student's top-1 accuracy on the evaluation data,
    if any was named.
    """

    pulled: PulledSidecar
    sidecar: Sidecar
    teacher: Teacher
    config: DistillConfig
    device: torch.device
    outcome: Outcome
    agreement: float
    accuracy: float | None = None
    evaluated_on: str | None = None


def distill(
    source: PulledSidecar | Path | str,
    config: DistillConfig,
    *,
    factory: str | None = None,
    device: torch.device | None = None,
    evaluation: Dataset | None = None,
    checkpoint: Path | None = None,
    resume: bool = False,
    seconds: float | None = None,
    progress: Progress | None = None,
) -> DistillRun:
    """Make inputs from teacher and sidecar, train a student on them, and measure it.

    ``source`` is a folder with both, ``user/repo`` or ``user/repo@revision`` on the Hub, or what
    was pulled from there.
    ``seconds`` (of a clock on the wall) is what the run may take on this machine: it decides
    ``images``, ``turn``, ``training.steps`` and, where batches are slow, ``options.batch_size``,
    which are then part of the run's configuration.

    ``factory`` is the caller's own ``module:function`` for a teacher whose source is ``local``. The
    student meets the evaluation data after training only. ``checkpoint`` and ``resume`` are those
    of ``run_method``. Raises SidecarError, TeacherError, MethodError, UsageError, and DataError for
    evaluation data that do not fit the teacher.
    """
    check_names(config)
    progress = progress or Silent()
    pulled = source
    if not isinstance(pulled, PulledSidecar):
        pulled = resolve_source(str(pulled), progress=progress)
    device = device or torch.device("cpu")
    progress.step("checking the sidecar and its digests")
    sidecar = read_sidecar(pulled.folder)
    progress.step(f"loading the teacher {sidecar.manifest.teacher.architecture}")
    teacher = teacher_from_sidecar(pulled.folder, sidecar, factory=factory).to(device)
    for oddity in oddities(teacher):
        progress.warn(oddity)
    if evaluation is not None:
        require_evaluable(evaluation, teacher.inputs, teacher.outputs)
    config = config.model_copy(update={"precision": precision_of(config, teacher, device)})
    if seconds is not None:
        config = _within(seconds, teacher, sidecar, config, device, checkpoint if resume else None)
    progress.step(
        f"distilling a student {config.student!r} with method {config.method!r}, "
        f"{config.training.steps:,} student steps"
    )
    outcome = run_method(
        teacher,
        sidecar,
        config,
        device,
        checkpoint=checkpoint,
        resume=resume,
        progress=progress,
    )
    module = outcome.student.module
    score = place = None
    if evaluation is not None:
        place = f"{evaluation.name} ({evaluation.split})"
        progress.step(f"evaluating on {place}")
        score = accuracy(module, evaluation, teacher.inputs)
    return DistillRun(
        pulled=pulled,
        sidecar=sidecar,
        teacher=teacher,
        config=config,
        device=device,
        outcome=outcome,
        agreement=agreement(module, teacher, some_of(outcome.pool.images)),
        accuracy=score,
        evaluated_on=place,
    )


def _within(
    seconds: float,
    teacher: Teacher,
    sidecar: Sidecar,
    config: DistillConfig,
    device: torch.device,
    interrupted: Path | None,
) -> DistillConfig:
    """``config`` with counts that take ``seconds``, or with those of an interrupted run."""
    if config.images is not None or config.training.steps != TrainingConfig().steps:
        raise UsageError(
            "a budget decides images and training.steps",
            hint="leave out either the budget or these settings",
        )
    if interrupted is None or not interrupted.exists():
        clock = clock_of(device, wall=True)
        return plan_budget(teacher, sidecar, config, device, seconds, clock=clock)
    found = interrupted_config(interrupted)
    training = config.training.model_copy(update={"steps": found.training.steps})
    planned: dict[str, object] = {
        "images": found.images,
        "turn": config.turn or found.turn,
        "training": training,
    }
    if found.method == config.method and "batch_size" in found.options:
        planned["options"] = {"batch_size": found.options["batch_size"], **config.options}
    return config.model_copy(update=planned)
