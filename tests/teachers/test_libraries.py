"""Teachers of other libraries, from folders they wrote themselves; skipped where not installed."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from dfkd_meta.errors import TeacherError, UsageError
from dfkd_meta.sidecar import sha256_file
from dfkd_meta.sidecar.manifest import InputSpec, OutputSpec, TeacherRef, WeightFile
from dfkd_meta.teachers import (
    ActivationTap,
    Teacher,
    default_taps,
    last_hidden_tap,
    open_teacher,
    teacher_from_sidecar,
)
from dfkd_meta.teachers.foreign import Foreign, describe_foreign
from dfkd_meta.teachers.sources.transformers import refuse_other_code
from tests.teachers.conftest import image_spec

SPEC = image_spec([3, 32, 32], [0.5] * 3, [0.5] * 3, "bilinear")


def check_taps(teacher: Teacher) -> None:
    """Taps are found and reached, the pass is unchanged, and the logits are plain."""
    taps = default_taps(teacher)
    images = torch.rand(2, 3, 32, 32)
    logits = teacher(images)
    assert logits.shape == (2, 5)
    with ActivationTap(teacher.module, taps) as tap:
        assert torch.equal(teacher(images), logits)
        assert torch.equal(tap.activations["output"], logits)
        assert tap.activations[last_hidden_tap(taps).id].ndim == 2
    norms = {n for n, m in teacher.module.named_modules() if isinstance(m, nn.BatchNorm2d)}
    assert {tap.module for tap in taps if tap.side == "input"} >= norms


def sidecar_for(teacher: Teacher) -> Any:
    files = [
        WeightFile(path=path.name, size=path.stat().st_size, sha256=sha256_file(path))
        for path in teacher.files
    ]
    reference = TeacherRef(
        source=teacher.source,  # type: ignore[arg-type]
        architecture=teacher.architecture,
        arguments=teacher.arguments,
        files=files,
        parameters=1,
    )
    manifest = SimpleNamespace(teacher=reference, inputs=teacher.inputs, outputs=teacher.outputs)
    return SimpleNamespace(manifest=manifest)


def transformers_folder(folder: Path, kind: str) -> nn.Module:
    transformers = pytest.importorskip("transformers", reason="needs the extra [transformers]")
    torch.manual_seed(0)
    if kind == "resnet":
        config = transformers.ResNetConfig(
            embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=5
        )
        model = transformers.ResNetForImageClassification(config)
    else:
        config = transformers.ViTConfig(
            hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
            image_size=32, patch_size=8, num_labels=5,
        )  # fmt: skip
        model = transformers.ViTForImageClassification(config)
    model.save_pretrained(folder)
    result: nn.Module = model.eval()
    return result


@pytest.mark.parametrize("kind", ["resnet", "vit"])
def test_transformers(tmp_path: Path, kind: str) -> None:
    model = transformers_folder(tmp_path, kind)
    with pytest.raises(UsageError, match="there is no preprocessor_config"):
        open_teacher(tmp_path)
    teacher = open_teacher(tmp_path, inputs=SPEC)
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(teacher(images), model(images).logits)
    check_taps(teacher)
    again = teacher_from_sidecar(tmp_path, sidecar_for(teacher))
    assert torch.equal(again(images), teacher(images))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_transformers_of_half_precision_are_opened_in_float32(
    tmp_path: Path, dtype: torch.dtype
) -> None:
    model = transformers_folder(tmp_path, "vit").to(dtype)
    model.save_pretrained(tmp_path)
    teacher = open_teacher(tmp_path, inputs=SPEC)
    assert {weight.dtype for weight in teacher.module.parameters()} == {torch.float32}
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(teacher(images), model.float()(images).logits)


def test_transformers_sees_bound_files_only(tmp_path: Path) -> None:
    transformers_folder(tmp_path, "resnet")
    sidecar = sidecar_for(open_teacher(tmp_path, inputs=SPEC))
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "evil/model"}')
    (tmp_path / "pytorch_model.bin").write_bytes(b"cos\nsystem\n")
    check_taps(teacher_from_sidecar(tmp_path, sidecar))
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "evil", "auto_map": {"AutoConfig": "evil.py--Evil"}})
    )
    (tmp_path / "evil.py").write_text("raise SystemExit('ran')")
    with pytest.raises(TeacherError, match="not the file"):
        teacher_from_sidecar(tmp_path, sidecar)


def test_transformers_never_runs_remote_code(tmp_path: Path) -> None:
    transformers_folder(tmp_path, "resnet")
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {
        "model_type": "evil",
        "auto_map": {"AutoConfig": "evil.E", "AutoModelForImageClassification": "evil.E"},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "evil.py").write_text("raise SystemExit('ran')")
    with pytest.raises(TeacherError, match="transformers cannot load"):
        open_teacher(tmp_path, inputs=SPEC)


@pytest.mark.parametrize(
    ("own", "named"),
    [
        ({"attn_implementation": "evil/kernel"}, "attn_implementation"),
        ({"_attn_implementation": {"": "evil/kernel"}}, "_attn_implementation"),
        ({"vision_config": {"quantization_config": {"bits": 4}}}, "quantization_config"),
        ({"parts": [{"backbone_kwargs": {"trust_remote_code": True}}]}, "backbone_kwargs"),
        ({"model_type": "timm_wrapper", "architecture": "hf-hub:evil/model"}, "model_type"),
    ],
)
def test_a_config_that_can_bring_in_other_code_is_refused(
    tmp_path: Path, own: dict[str, Any], named: str
) -> None:
    config = {"model_type": "vit", "architectures": ["ViT"], **own}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(TeacherError, match=f"sets {named}, which can") as caught:
        open_teacher(tmp_path, inputs=SPEC)
    assert caught.value.where == str(tmp_path / "config.json")
    labels = {"label2id": {"backbone": 0}, "id2label": {"0": "backbone"}}
    refuse_other_code({"attn_implementation": "sdpa", "quantization_config": None, **labels}, "x")


def test_transformers_preprocessing_is_read_where_it_is_plain(tmp_path: Path) -> None:
    transformers_folder(tmp_path, "vit")
    (tmp_path / "preprocessor_config.json").write_text(
        json.dumps(
            {
                "size": {"height": 32, "width": 32},
                "image_mean": [0.5, 0.5, 0.5],
                "image_std": [0.5, 0.5, 0.5],
                "resample": 2,
            }
        )
    )
    assert open_teacher(tmp_path).inputs == SPEC


PLAIN = {
    "size": {"height": 32, "width": 32},
    "resample": 2,
    "image_mean": [0.5] * 3,
    "image_std": [0.5] * 3,
}


def described(folder: Path, block: dict[str, Any], **config: Any) -> Foreign:
    (folder / "preprocessor_config.json").write_text(json.dumps(block))
    found = describe_foreign(folder, {"model_type": "vit", "architectures": ["ViT"], **config})
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("change", "mean"),
    [
        ({"do_normalize": False}, 0.0),
        ({"rescale_factor": 1 / 255, "do_rescale": True}, 0.5),
        ({"image_processor_type": "EfficientNetImageProcessor", "include_top": False}, 0.5),
    ],
)
def test_preprocessing_that_an_input_block_can_say(
    change: dict[str, Any], mean: float, tmp_path: Path
) -> None:
    found = described(tmp_path, {**PLAIN, **change})
    assert found.inputs is not None
    assert found.inputs.mean == [mean] * 3


@pytest.mark.parametrize(
    ("change", "lacking"),
    [
        ({"rescale_factor": 1 / 127.5}, "values from 0 to 1"),
        ({"do_rescale": False}, "values from 0 to 1"),
        ({"do_center_crop": True}, "asks for do_center_crop"),
        ({"do_flip_channel_order": True}, "asks for do_flip_channel_order"),
        ({"include_top": True}, "asks for include_top"),
        ({"image_processor_type": "EfficientNetImageProcessorFast"}, "normalizes twice"),
        ({"resample": 5}, "does not know resample 5"),
        ({"size": {"shortest_edge": 32}}, "does not say 'height'"),
        ({"image_std": [0.0] * 3}, "std"),
        ({"size": 32}, "is not what it should be"),
    ],
)
def test_preprocessing_that_an_input_block_cannot_say_is_not_guessed(
    change: dict[str, Any], lacking: str, tmp_path: Path
) -> None:
    found = described(tmp_path, {**PLAIN, **change})
    assert found.inputs is None
    assert lacking in found.lacking


def test_a_transformers_teacher_of_gray_images(tmp_path: Path) -> None:
    gray = {**PLAIN, "image_mean": [0.5], "image_std": [0.5]}
    found = described(tmp_path, gray, num_channels=1)
    assert found.inputs is not None
    assert (found.inputs.color_order, found.inputs.shape) == ("gray", [1, 32, 32])


def test_a_timm_teacher_of_gray_images() -> None:
    settings = {"input_size": [1, 28, 28], "mean": [0.1], "std": [0.3]}
    found = describe_foreign(Path(), {"architecture": "x", "pretrained_cfg": settings})
    assert found is not None
    assert found.inputs is not None
    assert (found.inputs.color_order, found.inputs.shape) == ("gray", [1, 28, 28])


def test_other_weights_beside_a_transformers_model_are_not_its_own(tmp_path: Path) -> None:
    for name in ("model.safetensors", "model.fp16.safetensors"):
        (tmp_path / name).touch()
    config = {"model_type": "vit", "architectures": ["ViT"]}
    found = describe_foreign(tmp_path, config)
    assert [path.name for path in found.files] == ["config.json", "model.safetensors"]  # type: ignore[union-attr]


def test_a_model_without_a_classifier_is_refused(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="needs the extra [transformers]")
    transformers_folder(tmp_path, "vit")
    config = transformers.ViTConfig.from_pretrained(tmp_path)
    transformers.ViTModel(config).save_pretrained(tmp_path)
    with pytest.raises(TeacherError, match="would be random"):
        open_teacher(tmp_path, inputs=SPEC)


def timm_folder(folder: Path) -> nn.Module:
    timm = pytest.importorskip("timm", reason="needs the extra [timm]")
    torch.manual_seed(0)
    model: nn.Module = timm.create_model("test_resnet", num_classes=5)
    save_file(model.state_dict(), folder / "model.safetensors")
    settings = {
        "input_size": [3, 32, 32], "mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.4],
        "interpolation": "bicubic", "crop_pct": 0.95, "crop_mode": "center",
    }  # fmt: skip
    config = {"architecture": "test_resnet", "num_classes": 5, "pretrained_cfg": settings}
    (folder / "config.json").write_text(json.dumps(config))
    return model.eval()


def test_timm(tmp_path: Path) -> None:
    model = timm_folder(tmp_path)
    teacher = open_teacher(tmp_path)
    assert (teacher.inputs.interpolation, teacher.inputs.crop_pct) == ("bicubic", 0.95)
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(teacher(images), model(images))
    check_taps(teacher)
    again = teacher_from_sidecar(tmp_path, sidecar_for(teacher))
    assert torch.equal(again(images), teacher(images))


@pytest.mark.parametrize(
    ("architecture", "arguments"),
    [
        ("test_resnet", {"num_classes": 5, "pretrained": True}),
        ("test_resnet", {"num_classes": 5, "checkpoint_path": "evil.pth"}),
        ("test_resnet", {"num_classes": 5, "no_such_argument": 1}),
        ("hf-hub:evil/model", {}),
        ("local-dir:/tmp", {}),
        ("no_such_model", {}),
    ],
)
def test_timm_fetches_nothing(tmp_path: Path, architecture: str, arguments: dict[str, Any]) -> None:
    timm_folder(tmp_path)
    sidecar = sidecar_for(open_teacher(tmp_path))
    sidecar.manifest.teacher = sidecar.manifest.teacher.model_copy(
        update={"architecture": architecture, "arguments": arguments}
    )
    with pytest.raises(TeacherError):
        teacher_from_sidecar(tmp_path, sidecar)


def test_an_unknown_library(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"n_layers": 3}')
    with pytest.raises(TeacherError, match="not from dfkd-meta, transformers or timm"):
        open_teacher(tmp_path, inputs=SPEC)


def test_hub_mixin_with_the_callers_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_mixin.py").write_text(
        "import torch\n"
        "class Net(torch.nn.Sequential):\n"
        "    def __init__(self, width: int) -> None:\n"
        "        super().__init__(torch.nn.Flatten(), torch.nn.Linear(12, width),\n"
        "                         torch.nn.ReLU(), torch.nn.Linear(width, 5))\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    from own_mixin import Net  # type: ignore[import-not-found]

    net = Net(width=6)
    save_file(net.state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"width": 6}')
    spec = InputSpec(shape=[12], axes=["f"], value_range=[0.0, 1.0], mean=[0.0], std=[1.0])
    teacher = open_teacher(tmp_path, inputs=spec, factory="own_mixin:Net")
    assert (teacher.source, teacher.arguments) == ("hub_mixin", {"width": 6})
    assert teacher.outputs == OutputSpec(num_classes=5)
    images = torch.rand(2, 12)
    assert torch.equal(teacher(images), net(images))
