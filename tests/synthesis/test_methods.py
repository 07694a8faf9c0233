"""Contract of every registered method: honest needs, seeded, finite, repeatable, tidy."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from dfkd_meta.errors import MethodError, UsageError
from dfkd_meta.sidecar import Sidecar, read_sidecar
from dfkd_meta.synthesis.engine import Synthesizer
from dfkd_meta.synthesis.recipe import MethodContext, Recipe, methods
from dfkd_meta.teachers import Teacher, teacher_from_sidecar

Published = Callable[[str, str], Path]
ARCHITECTURES = ("digits_cnn", "hinton800")  # with BatchNorm and without


def opened(folder: Path) -> tuple[Teacher, Sidecar]:
    sidecar = read_sidecar(folder)
    return teacher_from_sidecar(folder, sidecar), sidecar


def recipe_of(name: str, teacher: Teacher, sidecar: Sidecar) -> Recipe:
    context = MethodContext(teacher, sidecar, torch.device("cpu"))
    recipe = methods.get(name).recipe(context, {})
    return dataclasses.replace(recipe, images=13, batch_size=9, steps=min(recipe.steps, 2))


def make(name: str, teacher: Teacher, sidecar: Sidecar, seed: int = 0) -> torch.Tensor:
    recipe = recipe_of(name, teacher, sidecar)
    generator = torch.Generator().manual_seed(seed)
    pool = Synthesizer(teacher, recipe, generator).make_pool()
    assert pool.labels is not None
    assert pool.labels.unique().tolist() == [0, 1, 2]
    return pool.images


def hooks_of(module: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in module.modules())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("name", methods.names())
def test_steps_are_seeded_finite_and_leave_the_teacher_alone(
    name: str, architecture: str, published: Published
) -> None:
    teacher, sidecar = opened(published(architecture, "full"))
    before = {key: value.clone() for key, value in teacher.module.state_dict().items()}
    images = make(name, teacher, sidecar)
    assert images.shape == (13, 1, 8, 8)
    assert torch.isfinite(images).all()
    assert torch.equal(images, make(name, teacher, sidecar))
    assert not torch.equal(images, make(name, teacher, sidecar, seed=1))
    assert len(images.flatten(1).unique(dim=0)) == 13
    assert hooks_of(teacher.module) == 0
    assert all(torch.equal(v, before[k]) for k, v in teacher.module.state_dict().items())


@pytest.mark.parametrize("name", methods.names())
def test_needs_are_honest(name: str, published: Published) -> None:
    """With nothing but one alternative of each need the method runs; without one it refuses."""
    teacher, full = opened(published("digits_cnn", "full"))
    method = methods.get(name)
    for alternatives in method.needs:
        without = [
            record
            for record in full.manifest.statistics
            if not any(query.found(with_records(full, [record])) for query in alternatives)
        ]
        with pytest.raises(MethodError, match="needs what this sidecar does not hold") as caught:
            recipe_of(name, teacher, with_records(full, without))
        assert caught.value.hint is not None
        assert "noise" in caught.value.hint
    kept = [
        record
        for record in full.manifest.statistics
        if any(q.found(with_records(full, [record])) for need in method.needs for q in need[:1])
    ]
    make(name, teacher, with_records(full, kept))


def with_records(sidecar: Sidecar, records: list) -> Sidecar:
    manifest = sidecar.manifest.model_copy(update={"statistics": records})
    return dataclasses.replace(sidecar, manifest=manifest)


@pytest.mark.parametrize("name", methods.names())
def test_unknown_options_and_weights_are_refused(name: str, published: Published) -> None:
    teacher, sidecar = opened(published("digits_cnn", "full"))
    context = MethodContext(teacher, sidecar, torch.device("cpu"))
    with pytest.raises(UsageError, match="there is no option 'stepz'"):
        methods.get(name).recipe(context, {"stepz": 1})
    with pytest.raises(UsageError, match="no term 'nonsense'"):
        methods.get(name).recipe(context, {}).reweighted({"nonsense": 1.0})


def test_optimizing_lowers_the_loss(published: Published) -> None:
    """Ten times the steps must end at a lower loss: the gradient reaches the pixels."""
    teacher, sidecar = opened(published("hinton800", "standard"))
    context = MethodContext(teacher, sidecar, torch.device("cpu"))
    recipe = methods.get("recorded").recipe(context, {})
    distances = []
    for steps in (0, 30):
        short = dataclasses.replace(recipe, images=60, batch_size=60, steps=steps)
        pool = Synthesizer(teacher, short, torch.Generator().manual_seed(0)).make_pool()
        with torch.no_grad():
            picked = teacher(pool.images).argmax(1)
        distances.append(float((picked == pool.labels).float().mean()))
    assert distances[1] > 0.9 > distances[0]


def test_a_loss_that_explodes_is_an_error(published: Published) -> None:
    teacher, sidecar = opened(published("digits_cnn", "full"))
    recipe = recipe_of("deep_inversion", teacher, sidecar).reweighted({"bn": float("inf")})
    with pytest.raises(MethodError, match="became"):
        Synthesizer(teacher, recipe, torch.Generator()).make_pool()
