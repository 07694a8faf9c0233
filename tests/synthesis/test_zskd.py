"""Soft targets: Dirichlet draws around classes (ZSKD), features pushed through the last layer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from dfkd_meta.errors import MethodError
from dfkd_meta.sidecar import InputSpec, OutputSpec, read_sidecar
from dfkd_meta.synthesis.engine import Synthesizer
from dfkd_meta.synthesis.methods.soft_target import is_rectified, read_head
from dfkd_meta.synthesis.methods.zskd import concentrations
from dfkd_meta.synthesis.recipe import MethodContext, methods
from dfkd_meta.synthesis.targets import DirichletLabels, FeatureLabels
from dfkd_meta.teachers import Teacher, freeze, teacher_from_sidecar

SIMILARITY = torch.tensor([[1.0, 0.2, -0.6], [0.2, 1.0, 0.4], [-0.6, 0.4, 1.0]])


def draws(labels: DirichletLabels | FeatureLabels, classes: torch.Tensor, seed: int = 0):  # noqa: ANN201
    return labels(classes, torch.Generator().manual_seed(seed))


def test_concentrations_are_scaled_rows_times_beta() -> None:
    found = concentrations(SIMILARITY, (1.0, 0.1))
    assert torch.allclose(found[0, 0], torch.tensor([1.0, 0.5, 0.0]) + 1e-4)
    assert torch.allclose(found[0, 1], torch.tensor([0.0, 1.0, 0.25]) + 1e-4)
    assert torch.allclose(found[1], 0.1 * (found[0] - 1e-4) + 1e-4)


def test_dirichlet_draws_have_the_mean_of_their_class() -> None:
    alpha = concentrations(SIMILARITY, (1.0,))
    y = draws(DirichletLabels(alpha), torch.full((20_000,), 1))
    assert torch.allclose(y.sum(1), torch.ones(len(y)))
    assert torch.allclose(y.mean(0), alpha[0, 1] / alpha[0, 1].sum(), atol=0.01)


def test_the_smaller_beta_gives_surer_targets() -> None:
    """The published code's second beta has no effect; here half of the rows are drawn with it."""
    alphas = concentrations(SIMILARITY, (1.0, 0.1))
    large, both, small = (
        draws(DirichletLabels(part), torch.zeros(2_000).long()).amax(1).mean()
        for part in (alphas[:1], alphas, alphas[1:])
    )
    assert small > large + 0.1
    assert float(both) == pytest.approx(float(small + large) / 2, abs=0.02)


def test_every_class_meets_every_beta() -> None:
    """Also where a batch has one row of each class, in their order."""
    classes, variants = 10, 2
    alphas = torch.full((variants, classes, classes), 1e-4)
    alphas[0, :, 0] = alphas[1, :, 1] = 1e3  # the most likely class tells the variant
    labels, generator = DirichletLabels(alphas), torch.Generator().manual_seed(0)
    used = torch.stack([labels(torch.arange(classes), generator).argmax(1) for _ in range(30)])
    assert (used.sum(1) == classes // variants).all()
    assert (used.amin(0) < used.amax(0)).all()


def test_dirichlet_draws_survive_tiny_concentrations_and_repeat_by_seed() -> None:
    labels = DirichletLabels(torch.full((1, 3, 3), 1e-4))
    classes = torch.arange(3).repeat(300)
    y = draws(labels, classes)
    assert torch.isfinite(y).all()
    assert torch.allclose(y.sum(1), torch.ones(len(y)))
    assert torch.equal(y, draws(labels, classes))
    assert not torch.equal(y, draws(labels, classes, seed=1))


def test_feature_draws_have_the_correlation_of_their_directions() -> None:
    directions = nn.functional.normalize(torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, -2.0]]), dim=1)
    kept: list[torch.Tensor] = []

    class Head(nn.Linear):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            kept.append(input)
            return input

    y = draws(
        FeatureLabels(directions, Head(3, 3), 1.5, rectified=False), torch.zeros(40_000).long()
    )
    assert torch.allclose(torch.cov(kept[0].T), 2.25 * directions @ directions.T, atol=0.05)
    assert torch.allclose(y, kept[0].softmax(1))
    draws(FeatureLabels(directions, Head(3, 3), 1.5, rectified=True), torch.zeros(10).long())
    assert float(kept[1].min()) == 0


@pytest.mark.parametrize("architecture", ["digits_cnn", "hinton800"])
def test_the_head_is_the_last_layer_and_its_features_are_rectified(
    architecture: str, published: Callable[[str, str], Path]
) -> None:
    folder = published(architecture, "full")
    teacher = teacher_from_sidecar(folder, read_sidecar(folder))
    head = read_head(teacher)
    assert head.layer.out_features == teacher.outputs.num_classes
    assert len(head.directions) == head.layer.in_features
    assert torch.allclose(head.directions.norm(dim=1), torch.ones(len(head.directions)))
    assert is_rectified(teacher, head.tap)


def bare(module: nn.Module) -> Teacher:
    inputs = InputSpec(
        shape=[2, 4, 4], axes=["c", "h", "w"], value_range=[0.0, 1.0], mean=[0.0], std=[1.0]
    )
    return Teacher(freeze(module), "local", "x", {}, inputs, OutputSpec(num_classes=3))


def test_features_of_several_positions_take_the_columns_of_the_last_layer() -> None:
    flat = nn.Sequential(nn.Conv2d(2, 5, 3), nn.Flatten(), nn.Linear(20, 3))
    teacher = bare(flat)
    head = read_head(teacher)
    weight = flat[2].weight
    assert isinstance(weight, torch.Tensor)
    assert torch.allclose(head.directions, nn.functional.normalize(weight.T, dim=1))
    assert not is_rectified(teacher, head.tap)


def test_a_teacher_without_a_linear_last_layer_is_refused() -> None:
    with pytest.raises(MethodError, match="linear last layer"):
        read_head(bare(nn.Sequential(nn.Conv2d(2, 3, 4), nn.Flatten())))
    with pytest.raises(MethodError, match="no last hidden layer"):
        read_head(bare(nn.Sequential(nn.Flatten(), nn.LayerNorm(32))))


@pytest.mark.parametrize("name", ["zskd", "soft_target"])
def test_optimizing_brings_predictions_to_the_drawn_targets(
    name: str, published: Callable[[str, str], Path]
) -> None:
    folder = published("hinton800", "full")
    sidecar = read_sidecar(folder)
    teacher = teacher_from_sidecar(folder, sidecar)
    context = MethodContext(teacher, sidecar, torch.device("cpu"))
    options = {"temperature": 2.0} if name == "zskd" else {}
    recipe = methods.get(name).recipe(context, options).reweighted({})
    temperature = getattr(recipe.terms["soft"].term, "temperature", 0.0)
    generator = torch.Generator().manual_seed(0)
    soft = recipe.targets.sample(90, 0, generator).soft
    assert soft is not None
    images = Synthesizer(teacher, recipe, torch.Generator().manual_seed(0)).make_batch(90).images
    with torch.no_grad():
        reached = (teacher(images) / temperature).softmax(1)
    assert float((reached.argmax(1) == soft.argmax(1)).float().mean()) > 0.9
