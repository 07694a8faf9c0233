"""Which samples of the data an export counts, and which classes it describes."""

from __future__ import annotations

import numpy as np
import torch

from dfkd_meta.data import Dataset, Subset
from dfkd_meta.errors import StatisticsError
from dfkd_meta.producer.config import ExportConfig
from dfkd_meta.progress import Progress
from dfkd_meta.seeding import generator_for
from dfkd_meta.statistics import name_classes, unknown_label


def select(
    dataset: Dataset, num_classes: int, config: ExportConfig, progress: Progress
) -> tuple[Dataset, list[int]]:
    """The samples to count, and the classes to describe.

    A limit takes a random subset: data sorted by class would lose classes. With
    ``rare_classes="leave_out"`` classes of fewer than ``min_count`` samples go with their samples:
    in a record over all classes they would be what is left when those by class are subtracted.
    Raises StatisticsError for a label that the teacher has no class for, and when fewer than two
    classes are left.
    """
    if config.limit is not None:
        order = torch.randperm(len(dataset), generator=generator_for(config.seed, "export"))
        dataset = Subset(dataset, order[: config.limit].numpy())
    everyone, labels = list(range(num_classes)), dataset.labels
    if labels is None or not config.per_class or config.rare_classes == "refuse":
        return dataset, everyone
    counts = class_sizes(labels, num_classes, dataset.name)
    rare = {number: n for number, n in enumerate(counts) if n < config.min_count}
    if not rare:
        return dataset, everyone
    kept = [number for number in everyone if number not in rare]
    if len(kept) < 2:
        raise StatisticsError(
            f"all classes but {len(kept)} have fewer than {config.min_count} samples, and two are "
            f"needed: {name_classes(rare)}",
            hint="use more data, or release no per-class statistics (--set per_class=false)",
        )
    progress.warn(
        f"{len(rare)} class(es) of fewer than {config.min_count} samples are left out, with these "
        f"samples, and no inputs will be made for them: {name_classes(rare)}"
    )
    return Subset(dataset, np.flatnonzero(np.isin(labels, kept))), kept


def class_sizes(labels: np.ndarray, num_classes: int, name: str) -> list[int]:
    """Samples per class. Raises StatisticsError for a label that the teacher has no class for."""
    counts: list[int] = np.bincount(labels, minlength=num_classes).tolist()
    if len(counts) > num_classes:
        raise unknown_label(len(counts) - 1, num_classes, name)
    return counts
