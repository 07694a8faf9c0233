"""Accuracy and agreement: counted right, and the module is left as it was."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dfkd_meta.data import ArrayDataset
from dfkd_meta.distillation import evaluation
from dfkd_meta.distillation.evaluation import accuracy, agreement, at_once, class_counts
from dfkd_meta.errors import DataError
from dfkd_meta.sidecar.manifest import InputSpec

SPEC = InputSpec(shape=[3], axes=["f"], value_range=[0.0, 1.0], mean=[0.0], std=[1.0])
ANSWERS = np.array([0, 1, 2, 0, 1, 2, 2])
LABELS = np.array([0, 1, 2, 1, 1, 0, 2])  # five of seven right


def dataset(labels: np.ndarray | None = LABELS) -> ArrayDataset:
    return ArrayDataset("one-hot", "all", np.eye(3, dtype=np.float32)[ANSWERS], labels)


@pytest.mark.parametrize("size", [1, 3, 100])
def test_accuracy_counts_every_sample_once(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "AT_ONCE", size)
    assert accuracy(nn.Identity(), dataset(), SPEC) == pytest.approx(5 / 7)
    right, count = class_counts(nn.Identity(), dataset(), SPEC)
    assert right.tolist() == [1, 2, 2]
    assert count.tolist() == [2, 3, 2]


def test_the_mode_comes_back_and_dropout_is_off() -> None:
    for training in (True, False):
        module = nn.Sequential(nn.Dropout(0.9)).train(training)
        assert accuracy(module, dataset(), SPEC) == pytest.approx(5 / 7)
        assert module.training is training
        assert module[0].training is training


@pytest.mark.parametrize("labels", [None, LABELS + 1])
def test_labels_that_cannot_be_compared(labels: np.ndarray | None) -> None:
    with pytest.raises(DataError, match=r"needs labels|a class 3, the model knows 0 to 2"):
        accuracy(nn.Identity(), dataset(labels), SPEC)


class Roll(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.where(x[:, :1] > 0, x.roll(1, 1), x)  # errs on class 0 alone


def test_networks_see_fewer_inputs_at_once_where_these_are_large() -> None:
    shown = [at_once(shape) for shape in ([3], [1, 28, 28], [3, 224, 224], [3, 4096, 4096])]
    assert shown == [500, 500, 55, 1]


def test_agreement(monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.eye(3)[ANSWERS]
    assert agreement(nn.Identity(), nn.Identity(), images) == 1.0
    for size in (1, 2, 500):
        monkeypatch.setattr(evaluation, "AT_ONCE", size)
        assert agreement(Roll(), nn.Identity(), images) == pytest.approx(5 / 7)
    with pytest.raises(DataError, match="no images"):
        agreement(nn.Identity(), nn.Identity(), images[:0])
