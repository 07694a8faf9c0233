"""What a publisher types about inputs, and what the manifest then says."""

from __future__ import annotations

from pathlib import Path

import pytest

from dfkd_meta.config import make_config
from dfkd_meta.errors import TeacherError, UsageError
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


def test_a_folder_that_describes_itself_takes_no_other_description(tmp_path: Path) -> None:
    inputs = InputSpec(
        shape=[1, 8, 8], axes=["c", "h", "w"], value_range=[0, 1], mean=[0.3], std=[0.4]
    )
    arguments = {"num_classes": 3, "shape": [1, 8, 8], "width": 0.1}
    save_model(
        tmp_path,
        build_model("digits_cnn", arguments, seed=0),
        source="builtin",
        architecture="digits_cnn",
        arguments=arguments,
        inputs=inputs,
        outputs=OutputSpec(num_classes=3),
    )
    others = {"inputs": inputs.model_dump(), "num_classes": 7, "arguments": {"width": 3.0}}
    for name, value in others.items():
        with pytest.raises(UsageError, match="says"):
            open_for_export(str(tmp_path), None, make_config(ExportRun, {name: value}))
    assert open_for_export(str(tmp_path), None, ExportRun()).inputs == inputs


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mean": [0.1, 0.2]}, r"inputs\.mean: 2 values for 1 channels"),
        ({"color_order": "rgb"}, r"inputs\.color_order: rgb means 3 color channels"),
        ({"value_range": [1, 0]}, r"inputs\.value_range: \[1\.0, 0\.0\] is not ascending"),
        ({"axes": ["c", "h"]}, "the axes c h"),
        ({"axes": ["c", "h", "h"]}, "the axes c h h"),
    ],
)
def test_inputs_that_contradict_themselves_are_refused_before_any_pass(
    change: dict[str, object], message: str, tmp_path: Path
) -> None:
    block = {"shape": [1, 8, 8], "value_range": [0, 1], "mean": [0.3], "std": [0.4], **change}
    run = make_config(ExportRun, {"inputs": block, "num_classes": 3})
    with pytest.raises(TeacherError, match=message):
        open_for_export("digits_cnn", tmp_path / "never_read.safetensors", run)
