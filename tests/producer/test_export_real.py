"""Export of a published-size teacher on real data (needs DFKD_META_DATA)."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from dfkd_meta.data import open_data
from dfkd_meta.producer.export import export
from dfkd_meta.sidecar import read_sidecar, validate_sidecar
from dfkd_meta.teachers import open_teacher
from tests.producer.toys import INPUTS, config

REAL = os.environ.get("DFKD_META_DATA")


@pytest.mark.skipif(REAL is None, reason="DFKD_META_DATA is not set")
def test_lenet_on_mnist(tmp_path: Path) -> None:
    folder = Path(str(REAL))
    inputs = INPUTS.model_copy(
        update={
            "shape": [1, 32, 32],
            "mean": [0.1307],
            "std": [0.3081],
            "interpolation": "bilinear",
        }
    )
    teacher = open_teacher(
        "lenet5",
        weights=folder / "teachers" / "mnist_lenet5.safetensors",
        inputs=inputs,
        num_classes=10,
    )
    dataset, test = open_data(f"{folder}/mnist"), open_data(f"{folder}/mnist", split="test")
    manifest = export(
        teacher, dataset, config("full", limit=3000), tmp_path / "out", evaluation=test
    )
    assert manifest.profile == "full"
    assert manifest.evaluation is not None
    assert manifest.evaluation.accuracy > 0.99
    assert not validate_sidecar(tmp_path / "out").errors
    sidecar = read_sidecar(tmp_path / "out")
    record = sidecar.find("covariance", tap="input")[0]
    factor, residual = sidecar.array(record, "factor"), sidecar.array(record, "residual_variance")
    variance = sidecar.array(sidecar.find("moments", tap="input", scope="per_class")[0], "variance")
    total = (factor**2).sum((1, 2)) + 1024 * residual
    np.testing.assert_allclose(total, variance.sum(1), rtol=1e-3)  # factors are float16
    assert ((factor**2).sum((1, 2)) > 0.7 * total).all(), "40 components of a digit class keep most"
