"""One run, measured: what it cost, and how good its student is on data that nothing else saw."""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import torch

from dfkd_meta.bench.curve import Curve
from dfkd_meta.bench.journal import write_text
from dfkd_meta.bench.tasks import CellTask
from dfkd_meta.consumer.budget import plan_budget
from dfkd_meta.consumer.pipeline import DistillConfig, precision_of
from dfkd_meta.consumer.run import run_method
from dfkd_meta.data import open_data
from dfkd_meta.distillation.evaluation import accuracy, agreement, require_evaluable, some_of
from dfkd_meta.machine import machine_facts, versions
from dfkd_meta.sidecar import MANIFEST_FILE, Sidecar, read_sidecar, sha256_file
from dfkd_meta.sidecar.checks.privacy import describes_input, is_detailed
from dfkd_meta.teachers import Teacher, count_parameters, teacher_from_sidecar


def run_cell(task: CellTask, device: torch.device) -> dict[str, Any]:
    """Distill one student and measure it once, after its last step. Raises as ``run_method`` does.

    The facts are those of the journal. Peak memory is taken before the evaluation (it includes the
    looks at the student on the way, where ``curve`` asks for some).
    """
    folder = Path(task.teacher)
    sidecar = read_sidecar(folder)
    digest = sha256_file(folder / MANIFEST_FILE)
    teacher = teacher_from_sidecar(folder, sidecar, factory=task.factory).to(device)
    test = open_data(task.test, split="test")
    require_evaluable(test, teacher.inputs, teacher.outputs)
    precision = precision_of(task.config, teacher, device)  # once, not for every network timed
    settled = task.config.model_copy(update={"precision": precision})
    task = task.model_copy(update={"config": settled})
    config, planning = _planned(task, teacher, sidecar, device)
    if device.type == "cuda":  # what the planning took is no part of the run
        torch.cuda.reset_peak_memory_stats(device)
    # Named after the manifest: a checkpoint of a teacher that was made again since is left alone.
    checkpoint = Path(task.place) / f"{digest[:16]}.checkpoint"
    curve = Curve(task.curve, Path(task.place) / "curve.json", test, teacher.inputs)
    outcome = run_method(
        teacher, sidecar, config, device, checkpoint=checkpoint, resume=True, watch=curve
    )
    memory = {"peak_memory_mb": peak_memory_mb()}
    if device.type == "cuda":
        memory["peak_gpu_memory_mb"] = torch.cuda.max_memory_allocated(device) / 2**20
    module = outcome.student.module
    manifest = sidecar.manifest
    return {
        "teacher": {
            "architecture": manifest.teacher.architecture,
            "parameters": manifest.teacher.parameters,
            "accuracy": manifest.evaluation and manifest.evaluation.accuracy,
            "sidecar_sha256": digest,
            "profile": manifest.profile,
            "tracing_strength": max(manifest.privacy.tracing_strength.values(), default=0.0),
            "input_by_class": _input_by_class(sidecar),
        },
        "student": {
            "architecture": outcome.student.architecture,
            "arguments": outcome.student.arguments,
            "parameters": count_parameters(module),
        },
        "counts": {
            "images": config.images,
            "turn": config.turn,
            "steps": config.training.steps,
            "batch_size": config.options.get("batch_size"),
        },
        "result": {
            "accuracy": accuracy(module, test, teacher.inputs),
            "evaluated_on": f"{test.name} ({test.split}), {len(test)} samples",
            "agreement_on_inputs": agreement(module, teacher, some_of(outcome.pool.images)),
            "images": outcome.images,
            "student_steps": outcome.student_steps,
            "mirrored": outcome.mirrored,
            "curve": curve.found,
            "seconds": outcome.seconds,
            "cpu_seconds": outcome.cpu_seconds,
            "planning_cpu_seconds": planning,
            **memory,
        },
        "notes": outcome.notes,
        "precision": precision,
        "machine": {**machine_facts(device), **versions()},
    }


def _input_by_class(sidecar: Sidecar) -> bool:
    """Whether a record of some class, or of single places, is linear in the input."""
    return any(
        is_detailed(record) and describes_input(record, map(sidecar.tap, record.taps))
        for record in sidecar.manifest.statistics
    )


def peak_memory_mb() -> float:
    """The peak resident memory of this process in MiB.

    Linux counts the parent's memory into a child's ``ru_maxrss``, so it is asked another way there.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    unit = 2**20 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def _planned(
    task: CellTask, teacher: Teacher, sidecar: Sidecar, device: torch.device
) -> tuple[DistillConfig, float]:
    """The configuration with its counts, and the CPU seconds it took to find them.

    They are written down before the run begins: a run that goes on after a kill keeps them.
    """
    if task.cpu_seconds is None:
        return task.config, 0.0
    plan = Path(task.place) / "plan.json"
    if plan.exists():
        kept = json.loads(plan.read_text(encoding="utf-8"))
        return DistillConfig.model_validate(kept["config"]), kept["cpu_seconds"]
    started = time.process_time()
    config = plan_budget(teacher, sidecar, task.config, device, task.cpu_seconds, share=task.share)
    spent = time.process_time() - started
    write_text(plan, json.dumps({"config": config.model_dump(mode="json"), "cpu_seconds": spent}))
    return config, spent
