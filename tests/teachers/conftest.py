"""Input specifications and published checkpoints for the tests of teachers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from dfkd_meta.sidecar.manifest import InputSpec

torch.set_num_threads(1)


def image_spec(
    shape: list[int], mean: list[float], std: list[float], interpolation: str | None = None
) -> InputSpec:
    return InputSpec.model_validate(
        {
            "shape": shape,
            "axes": ["c", "h", "w"],
            "value_range": [0.0, 1.0],
            "mean": mean,
            "std": std,
            "color_order": {1: "gray", 3: "rgb"}.get(shape[0]),
            "interpolation": interpolation,
        }
    )


@pytest.fixture
def lenet_spec() -> InputSpec:
    return image_spec([1, 32, 32], [0.1307], [0.3081], "bilinear")


@pytest.fixture
def real_data() -> Path:
    folder = os.environ.get("DFKD_META_DATA")
    if not folder:
        pytest.skip("DFKD_META_DATA names no folder with the real data and checkpoints")
    return Path(folder)
