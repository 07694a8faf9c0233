"""The classes that a pass describes: the group of each sample, and how many there are of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from dfkd_meta.errors import StatisticsError


class DescribedClasses:
    """Some of the ``known`` classes of a teacher (default: all), ascending, and their samples.

    The group of a class is its place among them. ``counts``: the samples seen of each known class.
    """

    def __init__(self, known: int, classes: Sequence[int] | None = None) -> None:
        self.classes = tuple(range(known) if classes is None else classes)
        self.counts = [0] * known
        self._group = torch.full((known,), -1)
        self._group[list(self.classes)] = torch.arange(len(self.classes))

    def groups(self, labels: Tensor) -> Tensor:
        """The group of each label, -1 where it is not described: int64 `n` to `n`."""
        return self._group.to(labels.device)[labels]

    def check(self, labels: Tensor, samples: int, batch: int) -> None:
        """Raises StatisticsError unless there is one label of a described class per sample."""
        if labels.shape != (samples,):
            raise StatisticsError(
                f"batch {batch} has {samples} samples and labels of shape {list(labels.shape)}"
            )
        wrong = labels[(labels < 0) | (labels >= len(self.counts))]
        if len(wrong):
            raise unknown_label(int(wrong[0]), len(self.counts), f"batch {batch}")
        others = labels[self.groups(labels) < 0]
        if len(others):
            raise StatisticsError(
                f"batch {batch} has a sample of class {int(others[0])}, which is not described",
                hint="leave out the samples of such classes",
            )

    def count(self, labels: Tensor) -> None:
        """Add the samples of a batch."""
        found = torch.bincount(labels.cpu(), minlength=len(self.counts)).tolist()
        self.counts = [a + b for a, b in zip(self.counts, found, strict=True)]

    @property
    def sizes(self) -> dict[int, int]:
        """The samples of each described class."""
        return {number: self.counts[number] for number in self.classes}


def unknown_label(label: int, classes: int, where: str) -> StatisticsError:
    """The refusal of a label that the teacher has no class for."""
    return StatisticsError(
        f"the data have a label {label}, the teacher knows 0..{classes - 1}",
        where=where,
        hint="is this the data set, and the label order, that the teacher was trained on? "
        "Labels count from 0",
    )


def check_counts(samples: int, sizes: Mapping[int, int] | None, min_count: int) -> None:
    """Raises StatisticsError that lists every group under the minimum.

    ``sizes`` are the samples of each class that is to be described, None where none is.
    """
    if samples < min_count:
        raise StatisticsError(
            f"{samples} samples are fewer than the minimum group size {min_count}",
            hint="use more data; statistics of few people give them away",
        )
    small = {c: n for c, n in (sizes or {}).items() if n < min_count}
    if small:
        choices = [
            "add samples of these classes",
            "leave them and their samples out (--set rare_classes=leave_out)",
            "release no per-class statistics (--set per_class=false)",
        ]
        if min(small.values()):
            choices.append("lower the minimum (--set min_count=...)")
        raise StatisticsError(
            f"{len(small)} class(es) have fewer than {min_count} samples: {name_classes(small)}",
            hint=f"{', '.join(choices[:-1])}, or {choices[-1]}",
        )


def name_classes(sizes: Mapping[int, int], most: int = 20) -> str:
    """Classes with their samples: "class 3: 5, class 7: 0"."""
    listed = [f"class {c}: {n}" for c, n in list(sizes.items())[:most]]
    return ", ".join([*listed, *(["..."] if len(sizes) > most else [])])
