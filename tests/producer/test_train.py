"""Training on real data: what is read from them, and what is refused before the work."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from dfkd_meta.data import ArrayDataset, Dataset
from dfkd_meta.distillation.config import TrainingConfig
from dfkd_meta.errors import DataError, TeacherError
from dfkd_meta.producer import train
from dfkd_meta.producer.train import TrainConfig, input_spec, train_network
from tests.producer.toys import data

TRAINING = TrainingConfig(losses={"hard": 1.0}, steps=1, batch_size=8, mixup=0, cutmix=0)


def test_the_range_is_that_of_all_images() -> None:
    images = np.random.default_rng(0).uniform(0, 1, (10_050, 1, 2, 2)).astype(np.float32)
    images[-1, 0, 0] = 1.5, -0.4
    late = ArrayDataset("late", "train", images, np.arange(len(images)) % 3)
    assert input_spec(late, TrainConfig()).value_range == [-0.5, 2.0]  # not the extremes themselves
    plain = ArrayDataset("plain", "train", images[:-1], np.arange(len(images) - 1) % 3)
    assert str(input_spec(plain, TrainConfig()).value_range) == "[0.0, 1.0]"
    assert input_spec(late, TrainConfig(value_range=[-1, 3])).value_range == [-1.0, 3.0]
    with pytest.raises(DataError, match=r"reach from -0.4 to 1.5, beyond .* \[0.0, 1.0\]"):
        input_spec(late, TrainConfig(value_range=[0, 1]))
    with pytest.raises(ValueError, match="less than the second"):
        TrainConfig(value_range=[1, 0])


def test_one_number_goes_for_all_channels_and_two_for_three_are_refused() -> None:
    images = np.random.default_rng(0).uniform(0, 1, (20, 3, 4, 4)).astype(np.float32)
    color = ArrayDataset("color", "train", images, np.arange(20) % 2)
    assert input_spec(color, TrainConfig(mean=[0.5], std=[0.25])).mean == [0.5] * 3
    with pytest.raises(TeacherError, match="2 values for 3 channels"):
        input_spec(color, TrainConfig(mean=[0.5, 0.5]))


class Mixed(Dataset):
    """Images of two sizes, or also of two numbers of channels."""

    name, split, value_range, uniform = "mixed", "train", (0.0, 1.0), False

    def __init__(self, *channels: int) -> None:
        generator = torch.Generator().manual_seed(0)
        sizes = [(8, 6), (10, 12)] * 15
        self.images = [
            torch.rand(channels[i % len(channels)], *size, generator=generator)
            for i, size in enumerate(sizes)
        ]
        self.labels = np.arange(30) % 2

    def __len__(self) -> int:
        return len(self.images)

    def read(self, indices: Any) -> torch.Tensor:
        return torch.stack([self.images[i] for i in np.arange(30)[indices]])


def test_images_of_mixed_sizes_are_brought_to_one_shape() -> None:
    config = TrainConfig(shape=[1, 8, 8], training=TRAINING)
    teacher = train_network("digits_cnn", Mixed(1), config)
    each = torch.stack([image.square().mean() for image in Mixed(1).images]).mean()
    mean = torch.stack([image.mean() for image in Mixed(1).images]).mean()
    assert teacher.inputs.interpolation == "bilinear"
    assert teacher.inputs.mean == [round(float(mean), 4)]
    assert teacher.inputs.std == [pytest.approx(float((each - mean**2).sqrt()), abs=1e-4)]
    with pytest.raises(DataError, match="2 different shapes") as caught:
        input_spec(Mixed(1), TrainConfig())
    assert "--set shape" in str(caught.value.hint)
    with pytest.raises(DataError, match="images of 1 and of 3 channels"):
        input_spec(Mixed(1, 3), config)


def test_evaluation_data_that_do_not_fit_are_refused_before_the_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(train, "fit")
    for other, message in (
        (data(50, labeled=False, split="test"), "label"),
        (data(50, classes=7, split="test"), "class"),
    ):
        with pytest.raises(DataError, match=message):
            train_network("digits_cnn", data(), TrainConfig(), evaluation=other)
