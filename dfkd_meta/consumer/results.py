"""What a run leaves on disk: a plain student, its card, how to repeat it, and the inputs it saw."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dfkd_meta.config import flatten
from dfkd_meta.consumer.distill import DistillRun
from dfkd_meta.folders import ASK_FIRST, new_folder, require_free
from dfkd_meta.hub import RUN_FILE, StudentFacts, student_card
from dfkd_meta.machine import machine_facts, versions
from dfkd_meta.report.grid import grid_png
from dfkd_meta.sidecar import MANIFEST_FILE, InputSpec, sha256_file
from dfkd_meta.teachers import count_parameters, denormalize, save_model, valid_bounds
from dfkd_meta.tensor_files import write_tensors

GRID_IMAGES = 100
PART = 1_000  # inputs looked at together


def save_run(run: DistillRun, out: Path | str, *, overwrite: bool = False) -> dict[str, Any]:
    """Write the run into ``out``, whole or not at all, and return the content of ``run.json``.

    ``model.safetensors`` and ``config.json`` are the plain student; ``README.md`` its model card;
    ``run.json`` everything needed to repeat the run; ``synthetic.safetensors`` the inputs
    (raw values `n ...` as data have them, so that any command can read them as data; float16, or
    float32 of tables and of a range that float16 does not hold) and labels; ``synthetic.png`` some
    of them. Data that were given are not copied. ``out`` becomes a new folder, with ``overwrite``
    in the place of one that is not empty. Raises UsageError, TeacherError, DfkdMetaError.
    """
    out = Path(out)
    require_free(out, overwrite=overwrite, hint=ASK_FIRST)
    facts = describe(run)
    with new_folder(out) as folder:
        save_model(
            folder,
            run.outcome.student.module,
            source=run.outcome.student.source,
            architecture=run.outcome.student.architecture,
            arguments=run.outcome.student.arguments,
            inputs=run.teacher.inputs,
            outputs=run.teacher.outputs,
            extra={"distilled_from": facts["teacher"]},
        )
        text = json.dumps(facts, indent=2, sort_keys=True) + "\n"
        (folder / RUN_FILE).write_text(text, encoding="utf-8")
        card = student_card(_card_facts(run, facts, out.name))
        (folder / "README.md").write_text(card, encoding="utf-8")
        if not run.outcome.given:
            _save_inputs(run, folder)
    return facts


def describe(run: DistillRun) -> dict[str, Any]:
    """The run as plain data: the content of ``run.json``."""
    manifest, verdict = run.sidecar.manifest, run.outcome.verdict
    return {
        **versions(),
        "machine": machine_facts(run.device),
        "teacher": {
            "repo_id": run.pulled.repo_id,
            "commit": run.pulled.commit,
            "architecture": manifest.teacher.architecture,
            "factory": run.teacher.factory,
            "files": {file.path: file.sha256 for file in manifest.teacher.files},
            "sidecar_sha256": sha256_file(run.sidecar.folder / MANIFEST_FILE),
            "profile": manifest.profile,
        },
        "config": run.config.model_dump(mode="json"),
        "command": repeat_command(run),
        "student": {
            "architecture": run.outcome.student.architecture,
            "arguments": run.outcome.student.arguments,
            "parameters": count_parameters(run.outcome.student.module),
        },
        "result": {
            "images": run.outcome.images,
            "given": run.outcome.given,
            "student_steps": run.outcome.student_steps,
            "optimizers": [asdict(rule) for rule in run.outcome.rules],
            "mirrored": run.outcome.mirrored,
            "agreement_on_synthetic": run.agreement,
            "agreement_on_new": verdict and verdict.share,
            "agreement_on_new_inputs": verdict and verdict.inputs,
            "agreement_of_commonest_class": verdict and verdict.usual,
            "agreement_on_new_after": verdict and verdict.steps,
            "beyond_value_range": beyond_range(run),
            "accuracy": run.accuracy,
            "evaluated_on": run.evaluated_on,
            "seconds": _rounded(run.outcome.seconds),
            "cpu_seconds": _rounded(run.outcome.cpu_seconds),
            "notes": run.outcome.notes,
        },
    }


def beyond_range(run: DistillRun) -> float:
    """The share of the inputs' values that data cannot have: saved as data, they are cut off."""
    pool, inputs = run.outcome.pool.images, run.teacher.inputs
    low, high = valid_bounds(inputs)
    slack = 1e-3 * (high - low)
    beyond = 0
    for start in range(0, len(pool), PART):
        part = pool[start : start + PART]
        beyond += int(((part < low - slack) | (part > high + slack)).sum())
    return round(beyond / max(1, pool.numel()), 4)


def repeat_command(run: DistillRun) -> str:
    """The command line that makes this student again: every setting that is not the default."""
    where = run.pulled.folder.resolve().name
    if run.pulled.repo_id is not None:
        where = f"{run.pulled.repo_id}@{run.pulled.commit}"
    settings = flatten(run.config.model_dump(mode="json", exclude_defaults=True))
    words = ["dfkd-meta", "distill", where, "--out", "student", "--device", run.device.type]
    if run.teacher.factory is not None:
        words += ["--factory", run.teacher.factory]
    for key, value in settings.items():
        if key in ("student", "method", "seed"):
            words += [f"--{key}", str(value)]
        else:
            words += ["--set", f"{key}={json.dumps(value, ensure_ascii=False)}"]
    return shlex.join(words)


def _rounded(seconds: dict[str, float]) -> dict[str, float]:
    return {part: round(value, 2) for part, value in seconds.items()}


def _card_facts(run: DistillRun, facts: dict[str, Any], name: str) -> StudentFacts:
    manifest, verdict = run.sidecar.manifest, run.outcome.verdict
    own = run.outcome.student.source == "local"
    return StudentFacts(
        name=name,
        architecture=run.outcome.student.architecture,
        parameters=facts["student"]["parameters"],
        teacher=run.pulled.repo_id or run.pulled.folder.resolve().name,
        commit=run.pulled.commit,
        teacher_architecture=manifest.teacher.architecture,
        teacher_parameters=manifest.teacher.parameters,
        sidecar_sha256=facts["teacher"]["sidecar_sha256"],
        profile=manifest.profile,
        method=run.config.method,
        seed=run.config.seed,
        command=facts["command"],
        license=manifest.teacher.license,
        teacher_accuracy=manifest.evaluation.accuracy if manifest.evaluation else None,
        accuracy=run.accuracy,
        evaluated_on=run.evaluated_on,
        agreement=verdict.text if verdict else None,
        beyond_range=facts["result"]["beyond_value_range"],
        factory=run.outcome.student.architecture if own else None,
        data=Path(str(run.config.options.get("data"))).name if run.outcome.given else None,
    )


def _save_inputs(run: DistillRun, folder: Path) -> None:
    pool = run.outcome.pool
    tensors = {"images": _as_data(pool.images, run.teacher.inputs)}
    if pool.labels is not None:
        tensors["labels"] = pool.labels.contiguous()
    write_tensors(folder / "synthetic.safetensors", tensors)
    spread = torch.linspace(0, len(pool) - 1, min(GRID_IMAGES, len(pool))).long()
    chosen = pool.select(spread)
    order = (
        torch.arange(len(chosen)) if chosen.labels is None else chosen.labels.argsort(stable=True)
    )
    picture = grid_png(chosen.images[order], run.teacher.inputs)
    if picture is not None:
        (folder / "synthetic.png").write_bytes(picture)


def _as_data(images: Tensor, inputs: InputSpec) -> Tensor:
    """Raw values of model inputs `n ...`, made part by part: together they are gigabytes."""
    first = _smallest(denormalize(images[:1], inputs), inputs.value_range)
    found = torch.empty(images.shape, dtype=first.dtype)
    for start in range(0, len(images), PART):
        raw = denormalize(images[start : start + PART], inputs)
        found[start : start + PART] = _smallest(raw, inputs.value_range)
    return found


def _smallest(raw: Tensor, value_range: Sequence[float]) -> Tensor:
    """Raw values `n ...` in float16, none of them rounded out of the range.

    Those of tables, whose columns may vary far from 0 by little, and of a wide range in float32.
    """
    if raw.dim() == 2 or max(map(abs, value_range)) > torch.finfo(torch.float16).max:
        return raw
    low, high = (np.float16(end) for end in value_range)
    if float(low) < value_range[0]:
        low = np.nextafter(low, high)
    if float(high) > value_range[1]:
        high = np.nextafter(high, low)
    return raw.half().clamp(float(low), float(high))
