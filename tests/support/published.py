"""A small trained teacher with a sidecar of every profile, made once per test session."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from dfkd_meta.data import ArrayDataset
from dfkd_meta.distillation.config import TrainingConfig
from dfkd_meta.producer.config import ExportConfig
from dfkd_meta.producer.export import export
from dfkd_meta.producer.train import TrainConfig, train_network

CLASSES, SIZE, SAMPLES = 3, 8, 240


def blobs(split: str) -> ArrayDataset:
    """Gray 8x8 images of three classes: a bright square in one of three corners, under noise."""
    random = np.random.default_rng({"train": 0, "test": 1}[split])
    labels = np.arange(SAMPLES) % CLASSES
    images = random.uniform(0, 0.3, (SAMPLES, 1, SIZE, SIZE)).astype(np.float32)
    for image, label in zip(images, labels, strict=True):
        row, column = ((1, 1), (1, 5), (5, 1))[label]
        image[0, row : row + 2, column : column + 2] += 0.6
    return ArrayDataset("blobs", split, (images.clip(0, 1) * 255).astype(np.uint8), labels)


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """``published(architecture, profile)``: a folder with a trained teacher and its sidecar."""
    made: dict[tuple[str, str], Path] = {}

    def get(architecture: str = "digits_cnn", profile: str = "full") -> Path:
        key = (architecture, profile)
        if key not in made:
            folder = tmp_path_factory.mktemp("published") / f"{architecture}-{profile}"
            training = TrainingConfig(
                losses={"hard": 1.0}, steps=60, batch_size=32, mixup=0, cutmix=0
            )
            config = TrainConfig(width=0.25, training=training)
            teacher = train_network(architecture, blobs("train"), config)
            exporting = ExportConfig(profile=profile, created="2026-01-01T00:00:00Z")
            export(teacher, blobs("train"), exporting, folder, evaluation=blobs("test"))
            made[key] = folder
        return made[key]

    return get


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Small nets gain nothing from more threads, and test workers share the cores."""
    torch.set_num_threads(1)
