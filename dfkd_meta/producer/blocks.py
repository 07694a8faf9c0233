"""The blocks of a manifest, made from a teacher, a data set and what a pass found."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from safetensors import safe_open

from dfkd_meta.data import Dataset
from dfkd_meta.machine import installed, versions
from dfkd_meta.producer.config import ExportConfig
from dfkd_meta.sidecar import (
    KINDS,
    WEIGHTS_FILE,
    DatasetRef,
    Privacy,
    Provenance,
    StatisticRecord,
    Tap,
    TeacherRef,
    TensorRef,
    WeightFile,
    pack_record,
    sha256_file,
)
from dfkd_meta.sidecar.checks.evidence import frequencies_at
from dfkd_meta.sidecar.checks.privacy import tracing_strength
from dfkd_meta.sidecar.json_text import dump_json
from dfkd_meta.statistics import Collection, RecordRequest, Result, feature_count
from dfkd_meta.teachers import Teacher, count_parameters, save_teacher

POINTABLE = {"F16", "F32", "F64"}  # dtypes a sidecar may point at in a teacher file
Arrays = dict[str, NDArray[Any]]


def teacher_reference(teacher: Teacher, folder: Path, config: ExportConfig) -> TeacherRef:
    """Put the teacher into the folder if it is not there, and describe it."""
    foreign = teacher.source in ("transformers", "timm")
    if teacher.home == folder.resolve():
        names = [path.name for path in teacher.files]
    elif foreign:
        names = [Path(shutil.copy2(path, folder)).name for path in teacher.files]
    else:
        save_teacher(folder, teacher)
        names = [WEIGHTS_FILE]
    files = [
        WeightFile(path=n, size=(folder / n).stat().st_size, sha256=sha256_file(folder / n))
        for n in sorted(names)
    ]
    return TeacherRef(
        source=teacher.source,  # type: ignore[arg-type]
        architecture=teacher.architecture,
        arguments=teacher.arguments,
        files=files,
        parameters=count_parameters(teacher.module),
        license=config.teacher_license,
        library_version=installed(teacher.source) if foreign else None,
    )


def make_records(
    found: Collection, folder: Path, files: Sequence[WeightFile]
) -> tuple[list[StatisticRecord], Arrays]:
    pointers = _pointers(folder, files)
    records: list[StatisticRecord] = []
    tensors: Arrays = {}
    for request, result in found.results:
        record, packed = pack_record(*_record(request, result, found.classes, pointers))
        records.append(record)
        tensors.update(packed)
    return records, tensors


def _record(
    request: RecordRequest,
    result: Result,
    classes: Sequence[int],
    pointers: dict[str, TensorRef],
) -> tuple[StatisticRecord, Arrays]:
    """A record and the arrays to copy: what the weight file holds already becomes a pointer."""
    pointed = {role: pointers[key] for role, key in result.stored.items() if key in pointers}
    per_class = request.scope == "per_class"
    record = StatisticRecord(
        id=request.id,
        kind=request.kind,
        kind_version=KINDS[request.kind].version,
        taps=list(request.taps),
        reduction=request.reduction,
        scope=request.scope,
        classes=list(classes) if per_class else None,
        count=result.count,
        params=result.params,
        tensors=pointed,
    )
    return record, {role: a for role, a in result.arrays.items() if role not in pointed}


def _pointers(folder: Path, files: Sequence[WeightFile]) -> dict[str, TensorRef]:
    """References to every vector in the teacher's weight files, by key."""
    found: dict[str, TensorRef] = {}
    for entry in files:
        if not entry.path.endswith(".safetensors"):
            continue
        with safe_open(folder / entry.path, "numpy") as weights:
            for key in weights.keys():  # noqa: SIM118 - not a mapping
                part = weights.get_slice(key)
                shape, dtype = part.get_shape(), part.get_dtype()
                if len(shape) == 1 and dtype in POINTABLE:
                    found[key] = TensorRef(
                        key=key, dtype=dtype, shape=shape, axes="f", file=entry.path
                    )
    return found


def provenance(
    teacher: Teacher, dataset: Dataset, found: Collection, config: ExportConfig
) -> Provenance:
    """Where the numbers are from; class sizes where classes are told apart and large enough."""
    preprocessing = dump_json(teacher.inputs.model_dump(mode="json", exclude_none=True))
    software, counts = versions(), found.class_counts
    if counts is not None:
        smallest = min(counts[number] for number in found.classes)
        counts = counts if config.per_class and smallest >= config.min_count else None
    return Provenance(
        tool="dfkd-meta",
        tool_version=software["dfkd_meta"],
        torch_version=software["torch"],
        created=config.created or datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        seed=config.seed,
        samples=found.samples,
        class_counts=counts,
        preprocessing_sha256=hashlib.sha256(preprocessing).hexdigest(),
        dataset=DatasetRef(
            name=data_name(dataset, config),
            license=config.dataset_license,
            split=plain_text(dataset.split),
        ),
    )


def privacy(found: Collection, taps: Sequence[Tap], classes: int, config: ExportConfig) -> Privacy:
    """The minimum applied, and how exposed each counted record leaves its smallest group."""
    by_id = {tap.id: tap for tap in taps}
    strengths = {}
    for request, result in found.results:
        if smallest := result.smallest_group:
            here = [by_id[name] for name in request.taps]
            kind = KINDS[request.kind]
            features = classes if kind.of_logits else feature_count(here, request.reduction)
            if kind.has_frequencies:
                features *= frequencies_at(here[0])
            strengths[request.id] = tracing_strength(features, smallest)
    return Privacy(min_group_size=config.min_count, tracing_strength=strengths)


def data_name(dataset: Dataset, config: ExportConfig) -> str:
    """What the sidecar calls the data."""
    return config.dataset_name or plain_text(dataset.name)


def plain_text(text: str) -> str:
    """A folder's name as the standard allows texts: 1 to 200 characters that can be printed."""
    plain = "".join(c if c.isprintable() else "?" for c in text)
    return plain[:200] or "unnamed"
