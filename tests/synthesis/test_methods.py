"""Contract of every registered method: honest needs, seeded, finite, repeatable, tidy."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dfkd_meta.data import Subset
from dfkd_meta.errors import DataError, MethodError, UsageError
from dfkd_meta.producer.config import ExportConfig
from dfkd_meta.producer.export import export
from dfkd_meta.sidecar import Sidecar, read_sidecar
from dfkd_meta.synthesis.engine import Synthesizer
from dfkd_meta.synthesis.recipe import MethodContext, Recipe, methods
from dfkd_meta.teachers import Teacher, open_teacher, teacher_from_sidecar
from tests.support.published import blobs
from tests.support.small_recipes import BATCH, options_for, shrunk, teacher_for, write_blobs

Published = Callable[[str, str], Path]
ARCHITECTURES = ("digits_cnn", "hinton800")  # with BatchNorm and without
COLUMNS = {"adv", "bn", "oh", "balance", "act", "cr", "generator"}
MADE = [name for name in methods.names() if "data" not in methods.get(name).config.model_fields]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_blobs(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def of_some_classes(
    published: Published, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """The teacher of that name with a full sidecar that describes classes 0 and 2, not 1."""
    made: dict[str, Path] = {}

    def get(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp("some") / name
            whole = blobs("train")
            assert whole.labels is not None
            kept = np.flatnonzero((whole.labels != 1) | (np.arange(len(whole.labels)) < 20))
            settings = ExportConfig(profile="full", rare_classes="leave_out")
            export(open_teacher(published(name, "full")), Subset(whole, kept), settings, made[name])
        return made[name]

    return get


def opened(folder: Path) -> tuple[Teacher, Sidecar]:
    sidecar = read_sidecar(folder)
    return teacher_from_sidecar(folder, sidecar), sidecar


def recipe_of(name: str, teacher: Teacher, sidecar: Sidecar, data: Path) -> Recipe:
    context = MethodContext(teacher, sidecar, torch.device("cpu"))
    return shrunk(methods.get(name).recipe(context, options_for(name, data)))


def recipe_or_skip(name: str, teacher: Teacher, sidecar: Sidecar, data: Path) -> Recipe:
    """Methods may need what this architecture cannot have, such as dropout sites."""
    lacking = methods.get(name).missing(sidecar)
    if lacking:
        pytest.skip(f"this teacher's full sidecar has no {lacking[0]}")
    return recipe_of(name, teacher, sidecar, data)


def make(recipe: Recipe, teacher: Teacher, seed: int = 0) -> Tensor:
    """Two batches, the second as a student that has been trained would meet it."""
    student = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        student[1].reset_parameters()
    synthesizer = Synthesizer(teacher, recipe, torch.Generator().manual_seed(seed), student)
    batches = [synthesizer.make_batch(BATCH) for _ in range(2)]
    assert all(b.labels is None or len(b.labels) == BATCH for b in batches)
    assert all((b.labels is not None) == recipe.labeled for b in batches)
    return torch.cat([batch.images for batch in batches])


def hooks_of(module: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in module.modules())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("name", MADE)
def test_steps_are_seeded_finite_and_leave_the_teacher_alone(
    name: str, architecture: str, published: Published, data: Path
) -> None:
    teacher, sidecar = opened(published(architecture, "full"))
    before = {key: value.clone() for key, value in teacher.module.state_dict().items()}
    images = make(recipe_or_skip(name, teacher, sidecar, data), teacher)
    assert images.shape == (2 * BATCH, 1, 8, 8)
    assert torch.isfinite(images).all()
    assert not images.requires_grad
    again = make(recipe_of(name, teacher, sidecar, data), teacher)
    assert torch.equal(images, again)
    other = make(recipe_of(name, teacher, sidecar, data), teacher, seed=1)
    assert not torch.equal(images, other)
    assert len(images.flatten(1).unique(dim=0)) == 2 * BATCH
    assert hooks_of(teacher.module) == 0
    assert all(torch.equal(v, before[k]) for k, v in teacher.module.state_dict().items())


@pytest.mark.parametrize("name", methods.names())
def test_needs_are_honest(name: str, published: Published, data: Path) -> None:
    """With nothing but one alternative of each need the method runs; without one it refuses."""
    architecture = "hinton800" if "dropout" in str(methods.get(name).needs) else "digits_cnn"
    teacher, full = opened(published(architecture, "full"))
    method = methods.get(name)
    for alternatives in method.needs:
        without = [
            record
            for record in full.manifest.statistics
            if not any(query.found(with_records(full, [record])) for query in alternatives)
        ]
        with pytest.raises(MethodError, match="needs what this sidecar does not hold") as caught:
            recipe_of(name, teacher, with_records(full, without), data)
        assert caught.value.hint is not None
        assert "noise" in caught.value.hint
    kept = [
        record
        for record in full.manifest.statistics
        if any(q.found(with_records(full, [record])) for need in method.needs for q in need[:1])
    ]
    recipe = recipe_of(name, teacher, with_records(full, kept), data)
    if recipe.given is None:
        make(recipe, teacher)


@pytest.mark.parametrize("name", MADE)
def test_no_input_is_made_for_a_class_that_is_not_described(
    name: str, of_some_classes: Callable[[str], Path], data: Path
) -> None:
    teacher, sidecar = opened(of_some_classes(teacher_for(name)))
    assert sidecar.classes == [0, 2]
    recipe = recipe_of(name, teacher, sidecar, data)
    generator = torch.Generator().manual_seed(0)
    targets = [recipe.targets.sample(BATCH, index, generator) for index in range(3)]
    assert torch.cat([target.labels for target in targets]).unique().tolist() == [0, 2]
    assert torch.isfinite(make(recipe, teacher)).all()


def with_records(sidecar: Sidecar, records: list) -> Sidecar:
    manifest = sidecar.manifest.model_copy(update={"statistics": records})
    return dataclasses.replace(sidecar, manifest=manifest)


@pytest.mark.parametrize("name", methods.names())
def test_unknown_options_and_weights_are_refused(
    name: str, published: Published, data: Path
) -> None:
    teacher, sidecar = opened(published("hinton800", "full"))
    context = MethodContext(teacher, sidecar, torch.device("cpu"))
    options = options_for(name, data)
    with pytest.raises(UsageError, match=r"there is no option 'options\.stepz'"):
        methods.get(name).recipe(context, {**options, "stepz": 1})
    with pytest.raises(UsageError, match="no term 'nonsense'"):
        methods.get(name).recipe(context, options).reweighted({"nonsense": 1.0})


@pytest.mark.parametrize("name", methods.names())
def test_a_method_describes_itself(name: str, published: Published, data: Path) -> None:
    """What the list shows is what the recipe does; weights in the table are those in the recipe."""
    teacher, sidecar = opened(published("hinton800", "full"))
    method = methods.get(name)
    recipe = recipe_of(name, teacher, sidecar, data)
    assert method.in_rounds == (recipe.rounds is not None)
    assert set(recipe.components()) <= COLUMNS
    doubled = recipe.reweighted({key: 2 * item.weight for key, item in recipe.terms.items()})
    for column, value in recipe.components().items():
        assert doubled.components()[column] == (value if column == "generator" else 2 * value)
    assert recipe.reweighted(dict.fromkeys(recipe.terms, 0.0)).components().keys() <= {"generator"}


def test_optimizing_lowers_the_loss(published: Published, data: Path) -> None:
    """More steps must bring the teacher to the class aimed at: the gradient reaches the pixels."""
    teacher, sidecar = opened(published("hinton800", "standard"))
    context = MethodContext(teacher, sidecar, torch.device("cpu"))
    recipe = methods.get("recorded").recipe(context, {})
    reached = []
    for steps in (0, 30):
        short = dataclasses.replace(recipe, batch_size=60, steps=steps)
        batch = Synthesizer(teacher, short, torch.Generator().manual_seed(0)).make_batch(60)
        with torch.no_grad():
            picked = teacher(batch.images).argmax(1)
        reached.append(float((picked == batch.labels).float().mean()))
    assert reached[1] > 0.9 > reached[0]


def test_a_loss_that_explodes_is_an_error(published: Published, data: Path) -> None:
    teacher, sidecar = opened(published("digits_cnn", "full"))
    recipe = recipe_of("deep_inversion", teacher, sidecar, data).reweighted({"bn": float("inf")})
    with pytest.raises(MethodError, match="became"):
        Synthesizer(teacher, recipe, torch.Generator()).make_batch(BATCH)


def test_data_of_more_classes_than_the_teacher_has(published: Published, tmp_path: Path) -> None:
    teacher, sidecar = opened(published("digits_cnn", "minimal"))
    images = np.zeros((6, 8, 8), dtype=np.uint8)
    path = tmp_path / "more.npz"
    np.savez(path, images=images, labels=[0, 1, 2, 2, 1, 3])
    for name in ("real_data", "scratch"):
        with pytest.raises(DataError, match="a class 3, the teacher knows 0 to 2") as caught:
            recipe_of(name, teacher, sidecar, path)
        assert caught.value.where == str(path)
        assert "alternative_data" in str(caught.value.hint)
    assert recipe_of("alternative_data", teacher, sidecar, path).labeled is False


def test_a_teacher_without_gradients_is_refused_with_the_way_out(
    published: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher, sidecar = opened(published("digits_cnn", "minimal"))
    context = MethodContext(teacher, sidecar, torch.device("cpu"))
    recipe = shrunk(methods.get("deep_inversion").recipe(context, {}))
    forward = teacher.module.forward
    monkeypatch.setattr(teacher.module, "forward", lambda x: forward(x.round().detach()))
    synthesizer = Synthesizer(teacher, recipe, torch.Generator())
    with pytest.raises(MethodError, match="no gradient flows") as caught:
        synthesizer.make_batch(BATCH)
    assert "--method noise" in str(caught.value.hint)
