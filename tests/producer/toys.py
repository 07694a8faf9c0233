"""A tiny built-in teacher, data that fit it, and export settings with a fixed date."""

from __future__ import annotations

import numpy as np

from dfkd_meta.data import ArrayDataset
from dfkd_meta.producer.config import ExportConfig
from dfkd_meta.sidecar import InputSpec, OutputSpec
from dfkd_meta.teachers import Teacher, build_model, freeze, suited_layout

CREATED = "2026-01-02T03:04:05Z"
INPUTS = InputSpec(shape=[1, 8, 8], axes=["c", "h", "w"], value_range=[0, 1], mean=[0.3], std=[0.4])


def data(
    n: int = 120, *, labeled: bool = True, classes: int = 4, split: str = "train"
) -> ArrayDataset:
    generator = np.random.default_rng(0)
    labels = generator.permutation(n) % classes
    images = generator.uniform(0, 0.5, (n, 1, 8, 8)) + labels.reshape(-1, 1, 1, 1) / 8
    return ArrayDataset("toys", split, images.astype(np.float32), labels if labeled else None)


def builtin(name: str = "digits_cnn") -> Teacher:
    arguments = {"num_classes": 4, "shape": [1, 8, 8], "width": 0.1}
    module = suited_layout(freeze(build_model(name, arguments, seed=0)), INPUTS.shape)
    return Teacher(module, "builtin", name, arguments, INPUTS, OutputSpec(num_classes=4))


def config(profile: str = "standard", **own: object) -> ExportConfig:
    return ExportConfig.model_validate({"profile": profile, "created": CREATED, **own})
