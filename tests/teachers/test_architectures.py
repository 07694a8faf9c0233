"""Built-in architectures: published sizes, any input, seeded; no argument brings a traceback."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dfkd_meta.errors import TeacherError, UsageError
from dfkd_meta.teachers import architectures, build_model, count_parameters, freeze

IMAGES = [[1, 32, 32], [3, 32, 32], [1, 28, 28], [3, 40, 24], [1, 16, 16]]
DIGITS: dict[str, Any] = {"num_classes": 10, "shape": [1, 8, 8]}


@pytest.mark.parametrize(
    ("name", "shape", "parameters"),
    [
        ("hinton1200", [1, 28, 28], 2_395_210),
        ("hinton800", [1, 28, 28], 1_276_810),
        ("lenet5", [1, 32, 32], 61_706),
        ("lenet5_half", [1, 32, 32], 15_738),
        ("resnet20", [3, 32, 32], 269_722),
    ],
)
def test_published_parameter_counts(name: str, shape: list[int], parameters: int) -> None:
    module = build_model(name, {"num_classes": 10, "shape": shape}, seed=0)
    assert count_parameters(module) == parameters


@pytest.mark.parametrize("shape", IMAGES)
@pytest.mark.parametrize("name", architectures.names())
def test_every_architecture_takes_any_image_and_width(name: str, shape: list[int]) -> None:
    counts = []
    for width in (0.25, 1.0):
        arguments = {"num_classes": 7, "shape": shape, "width": width}
        module = freeze(build_model(name, arguments, seed=0))
        assert module(torch.zeros(2, *shape)).shape == (2, 7)
        counts.append(count_parameters(module))
    assert counts[0] < counts[1]


def test_half_is_width_one_half() -> None:
    arguments = {"num_classes": 10, "shape": [1, 32, 32]}
    half = build_model("lenet5_half", arguments, seed=3)
    same = build_model("lenet5", {**arguments, "width": 0.5}, seed=3)
    state = same.state_dict()
    for key, value in half.state_dict().items():
        assert torch.equal(value, state[key])


@pytest.mark.parametrize("name", architectures.names())
def test_the_seed_decides_and_the_global_generator_does_not_move(name: str) -> None:
    arguments = {"num_classes": 10, "shape": [1, 32, 32], "width": 0.25}
    before = torch.get_rng_state()
    first, second, third = (build_model(name, arguments, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    weights = [next(module.parameters()) for module in (first, second, third)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"num_classes": 10},
        {"num_classes": "10", "shape": [1, 8, 8]},
        {"num_classes": True, "shape": [1, 8, 8]},
        {"num_classes": 1, "shape": [1, 8, 8]},
        {"num_classes": 10, "shape": "188"},
        {"num_classes": 10, "shape": [1, 8]},
        {"num_classes": 10, "shape": [1, 0, 8]},
        {"num_classes": 10, "shape": [1, 8, 8.5]},
        {"num_classes": 10, "shape": [1, 1, 1]},
        {"num_classes": 10, "shape": None},
        {**DIGITS, "width": 0},
        {**DIGITS, "width": float("nan")},
        {**DIGITS, "width": 1e9},
        {**DIGITS, "width": "half"},
        {**DIGITS, "depth": 3},
    ],
)
def test_bad_arguments_are_teacher_errors(arguments: dict[str, Any]) -> None:
    with pytest.raises(TeacherError, match="digits_cnn"):
        build_model("digits_cnn", arguments, seed=0)


def test_bad_arguments_are_named() -> None:
    with pytest.raises(TeacherError, match="'depth': there is no such argument") as caught:
        build_model("lenet5", {"num_classes": 10, "shape": [1, 32, 32], "depth": 3}, seed=0)
    assert caught.value.where == "teacher.arguments.depth"


@pytest.mark.parametrize("name", ["lenet5", "lenet5_half"])
def test_too_small_for_lenet(name: str) -> None:
    with pytest.raises(TeacherError, match="at least 16x16"):
        build_model(name, {"num_classes": 10, "shape": [1, 8, 32]}, seed=0)


def test_sizes_beyond_memory_are_refused_without_taking_any() -> None:
    with (
        pytest.raises(TeacherError, match="cannot be built"),
        torch.device("meta"),
    ):
        build_model("hinton1200", {"num_classes": 10, "shape": [65_536] * 4}, seed=0)


def test_unknown_architecture_suggests_near_ones() -> None:
    with pytest.raises(UsageError) as caught:
        build_model("lenet_5", {}, seed=0)
    assert caught.value.hint
    assert "lenet5" in caught.value.hint


def test_the_demo_teacher_learns_the_digits_in_seconds() -> None:
    pytest.importorskip("sklearn", reason="scikit-learn carries the digits")
    from dfkd_meta.data import open_data

    train, test = open_data("digits"), open_data("digits", split="test")
    assert train.labels is not None
    assert test.labels is not None
    images, labels = train.read(slice(None)), torch.from_numpy(train.labels)
    module = build_model("digits_cnn", DIGITS, seed=0)
    optimizer = torch.optim.Adam(module.parameters(), 5e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(8):
        for batch in torch.randperm(len(train), generator=generator).split(64):
            loss = torch.nn.functional.cross_entropy(module(images[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    freeze(module)
    right = module(test.read(slice(None))).argmax(1) == torch.from_numpy(test.labels)
    assert right.float().mean() > 0.97
