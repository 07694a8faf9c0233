"""Training on real data: what is read from them, and what is refused before the work."""

from __future__ import annotations

import numpy as np
import pytest

from dfkd_meta.data import ArrayDataset
from dfkd_meta.errors import DataError, TeacherError
from dfkd_meta.producer import train
from dfkd_meta.producer.train import TrainConfig, input_spec, train_network
from tests.producer.toys import data


def test_the_range_is_that_of_all_images() -> None:
    images = np.random.default_rng(0).uniform(0, 1, (10_050, 1, 2, 2)).astype(np.float32)
    images[-1, 0, 0] = 1.5, -0.5
    late = ArrayDataset("late", "train", images, np.arange(len(images)) % 3)
    assert input_spec(late, TrainConfig()).value_range == [-0.5, 1.5]


def test_one_number_goes_for_all_channels_and_two_for_three_are_refused() -> None:
    images = np.random.default_rng(0).uniform(0, 1, (20, 3, 4, 4)).astype(np.float32)
    color = ArrayDataset("color", "train", images, np.arange(20) % 2)
    assert input_spec(color, TrainConfig(mean=[0.5], std=[0.25])).mean == [0.5] * 3
    with pytest.raises(TeacherError, match="2 values for 3 channels"):
        input_spec(color, TrainConfig(mean=[0.5, 0.5]))


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
