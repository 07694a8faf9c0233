"""``export``: teacher and data in, teacher and sidecar out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from dfkd_meta.data import Dataset, batches, count_batches, match_classes
from dfkd_meta.distillation.evaluation import accuracy
from dfkd_meta.folders import ASK_FIRST, new_folder, real_path, require_free
from dfkd_meta.producer.blocks import (
    data_name,
    make_records,
    plain_text,
    privacy,
    provenance,
    teacher_reference,
)
from dfkd_meta.producer.config import ExportConfig
from dfkd_meta.producer.profiles import plan
from dfkd_meta.producer.selection import class_sizes, select
from dfkd_meta.producer.sizes import check_sizes, in_words
from dfkd_meta.progress import Progress, Silent
from dfkd_meta.sidecar import MANIFEST_FILE, Evaluation, Manifest, SidecarError, write_sidecar
from dfkd_meta.sidecar.checks.profiles import honest_profile
from dfkd_meta.statistics import Collection, check_counts, collect, forecast
from dfkd_meta.teachers import Teacher, default_taps, oddities

LEARNED = 0.1  # of what the commonest class leaves: a teacher that does no better is no teacher


def export(
    teacher: Teacher,
    dataset: Dataset,
    config: ExportConfig,
    out: Path | str,
    *,
    evaluation: Dataset | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Manifest:
    """Compute the statistics of the profile and write teacher and sidecar into ``out``.

    One pass over ``dataset``, two for a mixture; the teacher's accuracy is measured on
    ``evaluation`` if given. ``out`` becomes a new folder (with ``overwrite`` in the place of one
    that is not empty), except when it is the folder that the teacher was opened from: then only the
    sidecar is added. On any error ``out`` stays as it was. Records that the format cannot hold are
    refused before the pass. Raises UsageError, StatisticsError, DataError, TeacherError,
    SidecarError.
    """
    out, progress = Path(out), progress or Silent()
    if teacher.home != real_path(out):
        require_free(out, overwrite=overwrite, needed=teacher.files, hint=ASK_FIRST)
    elif (out / MANIFEST_FILE).exists():
        progress.step(f"the sidecar that is in {out} will be replaced")
    for data in (dataset, evaluation):
        if data is not None:
            match_classes(data, teacher.outputs)
    for oddity in oddities(teacher):
        progress.warn(oddity)
    taps = default_taps(teacher)
    labeled = dataset.labels is not None
    num_classes = teacher.outputs.num_classes
    if dataset.labels is None:
        progress.step("no labels: only global statistics, less than standard and full promise")
    dataset, classes = select(dataset, num_classes, config, progress)
    described, samples = len(classes), len(dataset)
    requests = plan(config, teacher, taps, labeled=labeled, samples=samples, classes=described)
    sizes = forecast(teacher, requests, taps, classes=described)
    check_sizes(requests, sizes, described, samples)
    by_class = any(request.scope == "per_class" for request in requests)
    if dataset.labels is not None and by_class:
        counts = class_sizes(dataset.labels, num_classes, dataset.name)
        check_counts(samples, {number: counts[number] for number in classes}, config.min_count)
    measured = None if evaluation is None else _measure(teacher, evaluation, progress)
    total = count_batches(dataset, config.batch_size)
    progress.step(
        f"{len(requests)} records over {total:,} batches of {dataset.name}: {in_words(sizes)}"
    )
    labels_count = by_class or _fits(dataset, teacher)
    stream = _Stream(teacher, dataset, config, progress, total, labels_count)
    found = collect(teacher, stream, requests, taps, classes=classes, min_count=config.min_count)
    tell_accuracy(found, progress)
    with _destination(teacher, out) as folder:
        other = "" if config.dataset_name else " (another name: --set dataset_name=...)"
        name = data_name(dataset, config)
        progress.step(f"writing teacher and sidecar, which calls the data {name!r}{other}")
        reference = teacher_reference(teacher, folder, config)
        records, tensors = make_records(found, folder, reference.files)
        blocks: dict[str, Any] = {
            "profile": honest_profile(config.profile, taps, records, described),
            "teacher": reference,
            "inputs": teacher.inputs,
            "outputs": teacher.outputs,
            "taps": [tap for tap in taps if any(tap.id in r.taps for r in records)],
            "statistics": records,
            "provenance": provenance(teacher, dataset, found, config),
            "privacy": privacy(found, taps, num_classes, config),
        }
        if measured:
            blocks["evaluation"] = measured
        try:
            return write_sidecar(folder, blocks, tensors)
        except SidecarError as error:  # names a folder that nobody will see
            raise SidecarError(str(out), error.report, written=False) from error


@dataclass(frozen=True)
class _Stream:
    """The batches of an export, the same each time they are asked for."""

    teacher: Teacher
    dataset: Dataset
    config: ExportConfig
    progress: Progress
    total: int
    labels_count: bool

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        stream = batches(self.dataset, self.teacher.inputs, batch_size=self.config.batch_size)
        for images, labels in self.progress.track(stream, total=self.total, what="statistics"):
            yield images, labels if self.labels_count else None


def _fits(dataset: Dataset, teacher: Teacher) -> bool:
    """Whether the labels can be the teacher's: where no record needs them they need not be."""
    labels = dataset.labels
    return labels is not None and int(labels.max()) < teacher.outputs.num_classes


def tell_accuracy(found: Collection, progress: Progress) -> None:
    """Say how the teacher does on these data: weights or labels that do not belong show here."""
    if found.recognized is None or found.class_counts is None:
        return
    right, usual = found.recognized / found.samples, max(found.class_counts) / found.samples
    progress.step(f"the teacher gives {right:.1%} of these samples their label")
    if right - usual < LEARNED * (1 - usual):
        progress.warn(
            f"always naming the commonest class is right for {usual:.1%}: are these the "
            "weights, the normalization, the color order and the labels of this teacher?"
        )


def _measure(teacher: Teacher, dataset: Dataset, progress: Progress) -> Evaluation:
    progress.step(f"measuring the teacher on {len(dataset):,} samples of {dataset.name}")
    right = accuracy(teacher.module, dataset, teacher.inputs, progress=progress)
    return Evaluation(accuracy=right, samples=len(dataset), split=plain_text(dataset.split))


@contextmanager
def _destination(teacher: Teacher, out: Path) -> Iterator[Path]:
    """``out`` itself when the teacher lives there, else a folder that appears when it is whole."""
    if teacher.home == real_path(out):
        yield out
        return
    with new_folder(out) as folder:
        yield folder
