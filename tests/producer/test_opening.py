"""What a publisher types about inputs, and what the manifest then says."""

from __future__ import annotations

from pathlib import Path

import pytest

from dfkd_meta.config import make_config
from dfkd_meta.producer.opening import ExportRun, open_for_export
from dfkd_meta.sidecar import InputSpec, OutputSpec
from dfkd_meta.teachers import build_model, save_model


@pytest.mark.parametrize(
    ("architecture", "shape", "channels"),
    [("digits_cnn", [3, 8, 8], 3), ("digits_cnn", [1, 8, 8], 1), ("hinton800", [12], 1),
     ("hinton800", [2, 6], 6)],
)  # fmt: skip
def test_one_number_goes_for_all_channels(
    architecture: str, shape: list[int], channels: int, tmp_path: Path
) -> None:
    arguments = {"num_classes": 3, "shape": shape, "width": 0.1}
    save_model(
        tmp_path,
        build_model(architecture, arguments, seed=0),
        source="builtin",
        architecture=architecture,
        arguments=arguments,
        inputs=InputSpec(shape=[1], axes=["f"], value_range=[0, 1], mean=[0], std=[1]),
        outputs=OutputSpec(num_classes=3),
    )
    inputs = {"shape": shape, "value_range": [0, 1], "mean": [0.5], "std": [0.25] * channels}
    given = {"inputs": inputs, "num_classes": 3, "arguments": {"width": 0.1}}
    run = make_config(ExportRun, given)
    teacher = open_for_export(architecture, tmp_path / "model.safetensors", run)
    assert teacher.inputs.mean == [0.5] * channels
    assert teacher.inputs.std == [0.25] * channels
