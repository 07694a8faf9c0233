"""Opening and saving: what fits opens, what does not is said in names, and no file runs code."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from dfkd_meta.errors import DfkdMetaError, MissingExtraError, TeacherError, UsageError
from dfkd_meta.sidecar.manifest import InputSpec, OutputSpec, TeacherRef, WeightFile
from dfkd_meta.teachers import (
    Teacher,
    build_model,
    channels_last,
    freeze,
    open_teacher,
    save_model,
    suited_layout,
    teacher_from_sidecar,
)
from dfkd_meta.teachers.foreign import describe_foreign
from dfkd_meta.teachers.sources import SourceRequest
from dfkd_meta.teachers.sources.local import open_local
from tests.teachers.conftest import image_spec

SPEC = image_spec([1, 8, 8], [0.3], [0.4])
ARGUMENTS: dict[str, Any] = {"num_classes": 10, "shape": [1, 8, 8], "width": 0.25}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save(tmp_path / "model")
    return tmp_path / "model"


def save(folder: Path, **changes: Any) -> None:
    settings: dict[str, Any] = {
        "source": "builtin",
        "architecture": "digits_cnn",
        "arguments": ARGUMENTS,
        "inputs": SPEC,
        "outputs": OutputSpec(num_classes=10, label_names=[f"digit {i}" for i in range(10)]),
    }
    save_model(folder, build_model("digits_cnn", ARGUMENTS, seed=5), **{**settings, **changes})


def edit(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A module of the caller's own in the current directory, gone afterwards."""
    (tmp_path / "own_nets.py").write_text(
        "import torch\n"
        "def net(hidden=5):\n"
        "    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, hidden),\n"
        "                               torch.nn.ReLU(inplace=True), torch.nn.Linear(hidden, 3))\n"
        "def no_module():\n    return 1\n"
        "def crashes():\n    raise KeyError('oh')\n"
        "def scripted():\n"
        "    return torch.jit.script(torch.nn.Sequential(torch.nn.Flatten()))\n"
        "def lazy():\n"
        "    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(3))\n"
        "def tokens():\n    return torch.nn.Identity()\n"
        "number = 4\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield "own_nets"
    sys.modules.pop("own_nets", None)


def test_saved_and_opened_is_the_same_teacher(folder: Path) -> None:
    teacher = open_teacher(folder)
    module = build_model("digits_cnn", ARGUMENTS, seed=5).eval()
    x = torch.rand(4, 1, 8, 8)
    torch.testing.assert_close(teacher(x), module(x))  # but for the layout in memory
    assert torch.equal(teacher(x), suited_layout(freeze(module), SPEC.shape)(x))
    assert (teacher.source, teacher.architecture) == ("builtin", "digits_cnn")
    assert teacher.arguments == ARGUMENTS
    assert teacher.inputs == SPEC
    assert teacher.outputs.label_names
    assert teacher.weights == folder / "model.safetensors"
    assert teacher.files == (folder / "model.safetensors",)
    assert not teacher.module.training
    assert not any(parameter.requires_grad for parameter in teacher.module.parameters())
    assert teacher.to("cpu").inputs == SPEC


def test_saving_is_deterministic_and_leaves_nothing_else(folder: Path, tmp_path: Path) -> None:
    save(tmp_path / "again")
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
    for path in folder.iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()


def test_extra_is_kept_and_cannot_shadow(tmp_path: Path) -> None:
    save(tmp_path, extra={"base_model": "user/teacher"})
    assert json.loads((tmp_path / "config.json").read_text())["base_model"] == "user/teacher"
    open_teacher(tmp_path)
    with pytest.raises(ValueError, match="architecture"):
        save(tmp_path, extra={"architecture": "lenet5"})


def test_a_model_cannot_be_saved_over_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TeacherError, match="cannot write"):
        save(tmp_path / "file")


@pytest.mark.parametrize("name", ["a.pt", "a.pth", "pytorch_model.bin", "A.PKL"])
def test_pickles_are_refused_unread(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"cos\nsystem\n")
    with pytest.raises(TeacherError, match="safetensors only") as caught:
        open_teacher("digits_cnn", weights=tmp_path / name, inputs=SPEC, num_classes=10)
    assert caught.value.hint
    assert "save_file" in caught.value.hint


@pytest.mark.parametrize("content", [b"", b"\xff" * 64, b"\x08\0\0\0\0\0\0\0{}      ", b"{}"])
def test_broken_weights_are_one_error(folder: Path, content: bytes) -> None:
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(TeacherError):
        open_teacher(folder)


def test_a_mismatch_names_keys_and_shapes(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["fc.weight"] = torch.zeros(9, 16)
    tensors["extra"] = tensors.pop("bn1.bias")
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(TeacherError) as caught:
        open_teacher(folder)
    assert "missing: bn1.bias; unexpected: extra" in caught.value.message
    assert "wrong shape: fc.weight [9, 16] instead of [10, 16]" in caught.value.message


def test_arguments_beyond_the_weights_are_refused_before_memory_is_taken(folder: Path) -> None:
    edit(folder, arguments={"num_classes": 100_000, "shape": [65_536, 4096, 4096], "width": 16})
    with pytest.raises(TeacherError, match="do not fit"):
        open_teacher(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"source": "pickle"},
        {"source": 3},
        {"architecture": "os:system"},
        {"architecture": None},
        {"arguments": []},
        {"arguments": {"num_classes": 10}},
        {"inputs": {}},
        {"inputs": {**SPEC.model_dump(), "std": [0.0]}},
        {"inputs": {**SPEC.model_dump(), "shape": [3, 8, 8]}},
        {"outputs": {"num_classes": 11}},
        {"outputs": {"num_classes": 10, "label_names": ["zero", "one"]}},
        {"source": "local", "architecture": "os:getcwd"},
        {"source": "hub_mixin"},
    ],
)
def test_a_wrong_config_is_one_error(folder: Path, changes: dict[str, Any]) -> None:
    edit(folder, **changes)
    with pytest.raises(DfkdMetaError):
        open_teacher(folder)


@pytest.mark.parametrize("text", ["", "[]", "{", "{}", "\x00", "[" * 100_000, '{"a": 1}'])
def test_a_broken_config_is_a_teacher_error(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text)
    with pytest.raises(TeacherError):
        open_teacher(folder)


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(TeacherError, match="not a model folder"):
        open_teacher(tmp_path)


@pytest.mark.parametrize("name", ["lenet6", "no/such/folder", "", "\x00", "x" * 5000, "a:b:c"])
def test_what_is_not_a_teacher(name: str) -> None:
    with pytest.raises(UsageError, match="neither a model folder"):
        open_teacher(name, inputs=SPEC)


def test_a_factory_is_refused_where_it_would_build_nothing(folder: Path) -> None:
    with pytest.raises(UsageError, match="code of one's own"):
        open_teacher(folder, factory="own_nets:net")


def test_no_input_specification_is_ever_assumed(folder: Path) -> None:
    weights = folder / "model.safetensors"
    with pytest.raises(UsageError, match="how inputs are prepared"):
        open_teacher("digits_cnn", weights=weights, num_classes=10)


def test_a_built_in_needs_weights() -> None:
    with pytest.raises(TeacherError, match="needs one safetensors"):
        open_teacher("digits_cnn", inputs=SPEC, num_classes=10)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("name", "said", "hint"),
    [
        ("lazy", "weights that have no shape yet", "batch of zeros"),
        ("scripted", "cannot be watched", "before torch.jit.script"),
    ],
)
def test_what_torch_cannot_look_into_is_refused_with_the_way_out(
    own_module: str, name: str, said: str, hint: str
) -> None:
    with pytest.raises(TeacherError, match=said) as caught:
        open_teacher(f"{own_module}:{name}", inputs=SPEC)
    assert hint in str(caught.value.hint)


def test_images_with_the_channels_last_are_refused(own_module: str) -> None:
    spec = SPEC.model_copy(update={"axes": ["h", "w", "c"], "shape": [8, 8, 1]})
    with pytest.raises(TeacherError, match="as h w c, and these tools as c h w"):
        open_teacher(f"{own_module}:net", inputs=spec)


def test_the_stated_number_of_classes_must_be_the_models(folder: Path) -> None:
    edit(folder, outputs={"num_classes": 9})
    with pytest.raises(TeacherError, match="returns 10 logits, but 9 classes"):
        open_teacher(folder)


def test_weights_that_are_nan_are_noticed(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["fc.bias"][3] = float("nan")
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(TeacherError, match="NaN"):
        open_teacher(folder)


def test_own_code(own_module: str, tmp_path: Path) -> None:
    first = open_teacher(f"{own_module}:net", inputs=SPEC, arguments={"hidden": 7})
    assert first.outputs.num_classes == 3
    assert first.module[2].inplace is False
    weights = tmp_path / "own.safetensors"
    save_file(first.module.state_dict(), weights)
    again = open_teacher(f"{own_module}:net", weights=weights, inputs=SPEC, arguments={"hidden": 7})
    x = torch.rand(2, 1, 8, 8)
    assert torch.equal(first(x), again(x))
    with pytest.raises(TeacherError, match="do not fit"):
        open_teacher(f"{own_module}:net", weights=weights, inputs=SPEC)


def test_a_local_folder_opens_with_the_callers_factory_only(
    own_module: str, tmp_path: Path
) -> None:
    teacher = open_teacher(f"{own_module}:net", inputs=SPEC)
    save_model(
        tmp_path / "m", teacher.module, source="local", architecture="own_nets:net",
        arguments={}, inputs=teacher.inputs, outputs=teacher.outputs,
    )  # fmt: skip
    with pytest.raises(TeacherError, match="code that a file cannot bring along"):
        open_teacher(tmp_path / "m")
    assert open_teacher(tmp_path / "m", factory="own_nets:net").outputs.num_classes == 3
    assert open_teacher(tmp_path / "m", factory="own_nets:net").factory == "own_nets:net"


@pytest.mark.parametrize(
    ("attribute", "error"),
    [
        ("no_module", TeacherError),
        ("crashes", UsageError),
        ("tokens", TeacherError),
        ("number", UsageError),
        ("missing", UsageError),
        ("net.nothing", UsageError),
    ],
)
def test_own_code_that_misbehaves(own_module: str, attribute: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        open_teacher(f"{own_module}:{attribute}", inputs=SPEC)


def test_own_code_that_cannot_be_imported(own_module: str, tmp_path: Path) -> None:
    (tmp_path / "broken_nets.py").write_text("import no_such_package\n")
    with pytest.raises(UsageError, match="importing 'broken_nets' failed: ModuleNotFoundError"):
        open_teacher("broken_nets:net", inputs=SPEC)
    with pytest.raises(UsageError, match="importing 'absent_nets' failed"):
        open_teacher("absent_nets:net", inputs=SPEC)


def _sidecar(folder: Path, digest: str | None = None, **changes: Any) -> Any:
    import hashlib

    path = folder / "model.safetensors"
    digest = digest or hashlib.sha256(path.read_bytes()).hexdigest()
    fields: dict[str, Any] = {
        "source": "builtin",
        "architecture": "digits_cnn",
        "arguments": ARGUMENTS,
        "files": [WeightFile(path=path.name, size=path.stat().st_size, sha256=digest)],
        "parameters": 1,
    }
    reference = TeacherRef(**{**fields, **changes})
    outputs = OutputSpec(num_classes=10)
    return SimpleNamespace(
        manifest=SimpleNamespace(teacher=reference, inputs=SPEC, outputs=outputs)
    )


def test_a_sidecar_opens_its_teacher(folder: Path) -> None:
    teacher = teacher_from_sidecar(folder, _sidecar(folder))
    assert isinstance(teacher, Teacher)
    x = torch.rand(2, 1, 8, 8)
    assert torch.equal(teacher(x), open_teacher(folder)(x))


def test_a_sidecar_opens_no_other_file_than_the_one_it_binds(folder: Path) -> None:
    with pytest.raises(TeacherError, match="not the file"):
        teacher_from_sidecar(folder, _sidecar(folder, digest="0" * 64))
    sidecar = _sidecar(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(TeacherError, match="is missing"):
        teacher_from_sidecar(folder, sidecar)


def test_a_sidecar_cannot_name_code(folder: Path) -> None:
    with pytest.raises(TeacherError, match="code that a file cannot bring along"):
        teacher_from_sidecar(folder, _sidecar(folder, source="local", architecture="os:getcwd"))


@pytest.mark.parametrize("source", ["transformers", "timm"])
def test_a_missing_library_says_which_extra(
    folder: Path, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, source, None)
    with pytest.raises(MissingExtraError) as caught:
        teacher_from_sidecar(folder, _sidecar(folder, source=source))
    assert caught.value.hint == f"pip install 'dfkd-meta[{source}]'"


def test_flat_inputs(tmp_path: Path) -> None:
    flat = InputSpec(shape=[64], axes=["f"], value_range=[0.0, 1.0], mean=[0.0], std=[1.0])
    arguments = {"num_classes": 10, "shape": [64], "width": 0.02}
    module = build_model("hinton800", arguments, seed=0)
    save(tmp_path / "m", architecture="hinton800", arguments=arguments, inputs=flat)
    with pytest.raises(TeacherError, match="do not fit"):
        open_teacher(tmp_path / "m")
    save_model(
        tmp_path / "m", module, source="builtin", architecture="hinton800", arguments=arguments,
        inputs=flat, outputs=OutputSpec(num_classes=10),
    )  # fmt: skip
    assert open_teacher(tmp_path / "m")(torch.rand(2, 64)).shape == (2, 10)


def test_the_layout_in_memory_leaves_values_and_files_alone(tmp_path: Path) -> None:
    module = build_model("digits_cnn", ARGUMENTS, seed=5)
    before = {key: value.clone() for key, value in module.state_dict().items()}
    arguments = {"source": "builtin", "architecture": "digits_cnn", "arguments": ARGUMENTS}
    outputs = OutputSpec(num_classes=10)
    save_model(tmp_path / "plain", module, **arguments, inputs=SPEC, outputs=outputs)
    after = channels_last(module).state_dict()
    assert all(torch.equal(before[key], value) for key, value in after.items())
    save_model(tmp_path / "other", module, **arguments, inputs=SPEC, outputs=outputs)
    plain, other = (tmp_path / name / "model.safetensors" for name in ("plain", "other"))
    assert plain.read_bytes() == other.read_bytes()


def test_probabilities_are_no_logits(own_module: str, tmp_path: Path) -> None:
    (tmp_path / "own_softmax.py").write_text(
        "import torch\n"
        "def net():\n"
        "    parts = torch.nn.Flatten(), torch.nn.Linear(64, 3), torch.nn.Softmax(1)\n"
        "    return torch.nn.Sequential(*parts)\n"
    )
    with pytest.raises(TeacherError, match="probabilities, not logits") as caught:
        open_teacher("own_softmax:net", inputs=SPEC)
    assert "softmax" in (caught.value.hint or "")


def test_one_logit_is_no_two_classes(own_module: str, tmp_path: Path) -> None:
    (tmp_path / "own_yes_no.py").write_text(
        "import torch\n"
        "def net():\n"
        "    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 1))\n"
    )
    with pytest.raises(TeacherError, match="two classes or more") as caught:
        open_teacher("own_yes_no:net", inputs=SPEC)
    assert "0 and z" in (caught.value.hint or "")


def test_a_factory_is_told_the_number_of_classes_if_it_asks(
    own_module: str, tmp_path: Path
) -> None:
    (tmp_path / "own_wide.py").write_text(
        "import torch\n"
        "def net(num_classes):\n"
        "    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, num_classes))\n"
    )
    teacher = open_teacher("own_wide:net", inputs=SPEC, num_classes=7)
    assert teacher.outputs.num_classes == 7
    assert teacher.arguments == {"num_classes": 7}
    with pytest.raises(UsageError, match="missing 1 required") as caught:
        open_teacher("own_wide:net", inputs=SPEC)
    assert "--set arguments.NAME=VALUE" in (caught.value.hint or "")


@pytest.mark.parametrize(
    "config",
    [
        {"architecture": "resnet18", "pretrained_cfg": {}, "model_args": "abc"},
        {"architecture": "resnet18", "pretrained_cfg": {}, "model_args": [1]},
    ],
)
def test_arguments_of_others_that_are_none(tmp_path: Path, config: dict[str, object]) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(TeacherError, match="model_args is not an object"):
        open_teacher(tmp_path)


@pytest.mark.parametrize(
    ("channels", "settings"),
    [
        (2**70, "{}"),
        (10**12, "{}"),
        (3, "[" * 100_000),
        (3, '{"rescale_factor": 1' + "0" * 400 + "}"),
        (3, "[]"),
        (3, " " * (4 * 2**20 + 1)),
    ],
)
def test_preprocessing_of_others_that_is_none(tmp_path: Path, channels: int, settings: str) -> None:
    """Never a traceback, nor memory by a number in a file."""
    (tmp_path / "preprocessor_config.json").write_text(settings)
    config = {"model_type": "vit", "architectures": ["ViT"], "num_channels": channels}
    found = describe_foreign(tmp_path, config)
    assert found is not None
    assert found.inputs is None
    assert found.lacking


def test_a_configuration_that_is_no_plain_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "config.json")
    with pytest.raises(TeacherError, match="not a plain file"):
        open_teacher(tmp_path)
    (tmp_path / "config.json").unlink()
    (tmp_path / "config.json").symlink_to("/dev/zero")
    with pytest.raises(TeacherError, match="not a plain file"):
        open_teacher(tmp_path)


def test_weights_in_two_files_are_never_left_random(tmp_path: Path) -> None:
    files = tuple(tmp_path / f"{n}.safetensors" for n in "ab")
    request = SourceRequest("label", {}, files, "tests.statistics.toys:PlainNet")
    with pytest.raises(TeacherError, match="one safetensors file is needed, there are 2"):
        open_local(request)
