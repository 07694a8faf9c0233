"""Targets: balanced over classes in every batch, or over batches where a batch is too small."""

from __future__ import annotations

import pytest
import torch

from dfkd_meta.synthesis.targets import TargetSampler, every_class

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("classes", "size"), [(10, 250), (10, 256), (100, 250), (3, 3), (7, 4), (1_000, 27)]
)
def test_every_class_gets_its_share(classes: int, size: int) -> None:
    sampler, generator = TargetSampler(tuple(range(classes)), CPU), torch.Generator()
    batches = [sampler.sample(size, index, generator).labels for index in range(classes)]
    for labels in batches:
        assert len(labels) == size
        found = labels.unique(return_counts=True)[1]
        assert len(found) == min(classes, size)
        assert int(found.max() - found.min()) <= 1
        assert len(labels.unique_consecutive()) == len(found)
    for end in range(1, len(batches) + 1):  # no class gets the rows that are left over every time
        total = torch.cat(batches[:end]).bincount(minlength=classes)
        assert int(total.max() - total.min()) <= 1
    assert sampler.sample(10 * classes, 0, generator).labels.tolist() == sorted(
        list(range(classes)) * 10
    )


def test_only_the_classes_named_are_aimed_at() -> None:
    sampler = TargetSampler((2, 5, 9), CPU)
    labels = torch.cat([sampler.sample(7, i, torch.Generator()).labels for i in range(3)])
    assert labels.bincount(minlength=10).tolist() == [0, 0, 7, 0, 0, 7, 0, 0, 0, 7]
    assert every_class(4, (2, 5, 9), CPU).labels.tolist() == [2, 5, 9, 2]
