"""DeepInversion, ADI, CMI, FastDFKD and NAYER: what is theirs alone, and that they continue."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dfkd_meta.augmentation import roll_batch
from dfkd_meta.checkpoint import load_state, save_state
from dfkd_meta.data import ArrayDataset
from dfkd_meta.producer.config import ExportConfig
from dfkd_meta.producer.export import export
from dfkd_meta.sidecar import InputSpec, OutputSpec, Sidecar, Tap, read_sidecar
from dfkd_meta.synthesis.engine import Synthesizer
from dfkd_meta.synthesis.gaussians import ClassGaussians
from dfkd_meta.synthesis.methods.cmi import CMIConfig, shift_and_flip
from dfkd_meta.synthesis.methods.deep_inversion import batch_statistics, jitter_and_flip
from dfkd_meta.synthesis.methods.fast_dfkd import FastDFKDConfig
from dfkd_meta.synthesis.recipe import MethodContext, Recipe, methods
from dfkd_meta.synthesis.sources.inverted import InvertedSource
from dfkd_meta.synthesis.sources.label_embedding import (
    LabelEmbeddingSource,
    occurrence,
    spread_embeddings,
)
from dfkd_meta.synthesis.targets import Targets
from dfkd_meta.synthesis.terms.base import StepState
from dfkd_meta.synthesis.terms.moments import MomentNorms, MomentumNorms
from dfkd_meta.synthesis.terms.recorded_moments import RecordedMoments
from dfkd_meta.teachers import Teacher, build_model, freeze, teacher_from_sidecar
from tests.support.small_recipes import shrunk

Published = Callable[[str, str], Path]
NAMES = ("deep_inversion", "adaptive_deep_inversion", "cmi", "fast_dfkd", "nayer")
CPU = torch.device("cpu")
CONV = Tap(
    id="c:output", module="c", side="output", axes=["c", "h", "w"], shape=[3, 4, 4],
    linear_in_input=False,
)  # fmt: skip


def seeded(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def opened(folder: Path) -> tuple[Teacher, Sidecar]:
    sidecar = read_sidecar(folder)
    return teacher_from_sidecar(folder, sidecar), sidecar


def recipe_of(name: str, folder: Path, **options: object) -> Recipe:
    return methods.get(name).recipe(MethodContext(*opened(folder), CPU), options)


def linear_student(classes: int, features: int) -> nn.Module:
    student = nn.Sequential(nn.Flatten(), nn.Linear(features, classes))
    for seed, parameter in enumerate(student.parameters()):
        parameter.data = seeded(*parameter.shape, seed=seed)
    return student


def state_of(activation: Tensor) -> StepState:
    labels = torch.zeros(len(activation), dtype=torch.int64)
    return StepState(
        activation, activation, torch.zeros(len(activation), 2), {CONV.id: activation},
        Targets(labels), torch.Generator(),
    )  # fmt: skip


def conv_record() -> RecordedMoments:
    statistics = ClassGaussians(torch.tensor([[0.5, -1.0, 2.0]]), torch.tensor([[1.0, 4.0, 0.25]]))
    return RecordedMoments(CONV, "channel", statistics)


def numpy_moments(activation: Tensor) -> tuple[np.ndarray, np.ndarray]:
    rows = activation.double().numpy().transpose(1, 0, 2, 3).reshape(3, -1)
    return rows.mean(1), rows.var(1)


def numpy_norms(mean: np.ndarray, variance: np.ndarray, relative: bool) -> float:
    recorded_mean, recorded = np.array([0.5, -1, 2]), np.array([1, 4, 0.25])
    if not relative:
        return float(
            np.sqrt(((mean - recorded_mean) ** 2).sum())
            + np.sqrt(((variance - recorded) ** 2).sum())
        )
    padded = recorded + 0.05 * recorded.mean()
    return float(
        np.sqrt(((mean - recorded_mean) ** 2 / padded).sum())
        + np.sqrt((((variance - recorded) / padded) ** 2).sum())
    )


@pytest.mark.parametrize("relative", [False, True])
def test_momentum_norms_equal_the_formula_over_three_batches(relative: bool) -> None:
    rate = 0.8
    term = MomentumNorms((conv_record(),), rate, relative)
    average: tuple[np.ndarray, np.ndarray] | None = None
    for seed in range(3):
        activation = seeded(6, 3, 4, 4, seed=seed) * (seed + 1) + 3
        mean, variance = numpy_moments(activation)
        if average is not None:
            mean = (1 - rate) * mean + rate * average[0]
            variance = (1 - rate) * variance + rate * average[1]
        expected = numpy_norms(mean, variance, relative)
        for _ in range(2):  # steps inside a batch leave the average alone
            assert float(term(state_of(activation))) == pytest.approx(expected, rel=1e-4)
        if seed == 0:
            plain = MomentNorms((conv_record(),), relative)(state_of(activation))
            assert float(plain) == pytest.approx(expected, rel=1e-4)
        term.end_batch(state_of(activation))
        average = mean, variance


def test_a_moving_average_is_of_whole_batches() -> None:
    statistics = ClassGaussians(torch.zeros(2, 3), torch.ones(2, 3), classes=(0, 1))
    with pytest.raises(ValueError, match="global records only"):
        MomentumNorms((RecordedMoments(CONV, "channel", statistics),))


@pytest.mark.parametrize("architecture", ["digits_cnn", "hinton800"])
@pytest.mark.parametrize("name", NAMES)
def test_the_state_continues_bit_for_bit(
    name: str, architecture: str, published: Published, tmp_path: Path
) -> None:
    """Through a file, over the warm-up, a new NAYER generator and a reset of first layers."""
    folder = published(architecture, "full")
    options = {"nayer": {"life": 2}, "fast_dfkd": {"reset_after": 2}, "cmi": {"bank": 20}}

    def synthesizer(seed: int) -> Synthesizer:
        recipe = shrunk(recipe_of(name, folder, **options.get(name, {})))
        generator = torch.Generator().manual_seed(seed)
        return Synthesizer(opened(folder)[0], recipe, generator, linear_student(3, 64))

    whole = synthesizer(0)
    expected = [whole.make_batch(9).images for _ in range(6)]
    for cut in (1, 4):
        begun = synthesizer(0)
        for _ in range(cut):
            begun.make_batch(9)
        save_state(tmp_path / "state", begun.state())
        again = synthesizer(1)
        again.load_state(load_state(tmp_path / "state"))
        found = [again.make_batch(9).images for _ in range(6 - cut)]
        assert all(torch.equal(a, b) for a, b in zip(found, expected[cut:], strict=True))


@pytest.mark.parametrize("shape", [[12], [3, 10, 7]])
@pytest.mark.parametrize("name", NAMES)
def test_vectors_and_color_images_of_any_size(name: str, shape: list[int], tmp_path: Path) -> None:
    classes, samples = 4, 120
    axes = ["f"] if len(shape) == 1 else ["c", "h", "w"]
    channels = shape[0] if len(shape) == 3 else 1
    inputs = InputSpec(
        shape=shape, axes=axes, value_range=[0, 1], mean=[0.3] * channels, std=[0.4] * channels
    )
    arguments = {"num_classes": classes, "shape": shape, "width": 0.02}
    module = freeze(build_model("hinton800", arguments, seed=0))
    teacher = Teacher(
        module, "builtin", "hinton800", arguments, inputs, OutputSpec(num_classes=classes)
    )
    random = np.random.default_rng(0)
    data = ArrayDataset(
        "toys", "train", random.uniform(0, 1, (samples, *shape)).astype(np.float32),
        np.arange(samples) % classes,
    )  # fmt: skip
    settings = ExportConfig(profile="minimal", created="2026-01-01T00:00:00Z")
    export(teacher, data, settings, tmp_path / "out")
    recipe = shrunk(recipe_of(name, tmp_path / "out", **({} if name == "cmi" else {"flip": True})))
    student = linear_student(classes, int(np.prod(shape)))
    maker = Synthesizer(teacher, recipe, torch.Generator().manual_seed(0), student)
    batches = [maker.make_batch(9).images for _ in range(2)]
    assert all(batch.shape == (9, *shape) and torch.isfinite(batch).all() for batch in batches)
    assert not torch.equal(*batches)


@pytest.mark.parametrize("name", NAMES)
def test_recorded_moments_stand_in_for_batchnorm_and_a_note_says_so(
    name: str, published: Published
) -> None:
    assert recipe_of(name, published("digits_cnn", "full")).notes == ()
    recipe = recipe_of(name, published("hinton800", "full"))
    assert "no BatchNorm" in recipe.notes[0]
    taps = [tap.id for tap in recipe.terms["bn"].term.taps]
    assert taps
    assert all(tap in recipe.notes[0] for tap in taps)
    assert not {"input", "output"} & set(taps)


def test_batchnorm_statistics_are_those_of_the_module(published: Published) -> None:
    teacher, sidecar = opened(published("digits_cnn", "minimal"))
    records = batch_statistics(MethodContext(teacher, sidecar, CPU))
    assert [record.tap.id for record in records] == ["bn1:input", "bn2:input", "bn3:input"]
    layers = [m for m in teacher.module.modules() if isinstance(m, nn.BatchNorm2d)]
    for record, layer in zip(records, layers, strict=True):
        assert torch.equal(record.statistics.mean[0], layer.running_mean)  # type: ignore[arg-type]
        assert torch.equal(record.variance[0], layer.running_var)  # type: ignore[arg-type]


def test_the_component_table_row_of_each(published: Published) -> None:
    rows = {name: recipe_of(name, published("digits_cnn", "full")).components() for name in NAMES}
    assert set(rows["deep_inversion"]) == {"oh", "bn"}
    assert set(rows["adaptive_deep_inversion"]) == {"oh", "bn", "adv"}
    assert set(rows["cmi"]) == {"oh", "bn", "adv", "cr", "generator"}
    assert set(rows["fast_dfkd"]) == set(rows["nayer"]) == {"oh", "bn", "adv", "generator"}
    kinds = [rows[name]["generator"] for name in ("cmi", "fast_dfkd", "nayer")]
    assert kinds == ["re-initialized", "meta", "label embedding"]


@pytest.mark.parametrize(
    ("steps", "rates"), [(2, (0.015, 0.05)), (5, (0.01, 0.05)), (10, (0.006, 0.05))]
)
def test_fast_dfkd_has_rates_for_each_count_of_inner_steps(
    steps: int, rates: tuple[float, float]
) -> None:
    assert FastDFKDConfig(inner_steps=steps).rates == rates
    assert FastDFKDConfig(inner_steps=steps, learning_rate=0.1).rates == (0.1, rates[1])


def test_jitter_and_flip_move_a_batch_as_one() -> None:
    images, seen = seeded(3, 1, 4, 5), []
    for seed in range(40):
        moved = jitter_and_flip(1, True)(images, torch.Generator().manual_seed(seed))
        rolled = roll_batch(images, 1, torch.Generator().manual_seed(seed))
        seen.append(torch.equal(moved, rolled.flip(3)))
        assert seen[-1] or torch.equal(moved, rolled)
        unmoved = jitter_and_flip(1, False)(images, torch.Generator().manual_seed(seed))
        assert torch.equal(unmoved, rolled)
    assert 10 < sum(seen) < 30


def test_shift_and_flip_move_each_image_for_itself(published: Published) -> None:
    context = MethodContext(*opened(published("digits_cnn", "minimal")), CPU)
    images = seeded(60, 1, 8, 8)
    mirrored = shift_and_flip(context, CMIConfig(shift=0, flip=True))(images, torch.Generator())
    turned = [torch.equal(a, b.flip(2)) for a, b in zip(mirrored, images, strict=True)]
    kept = [torch.equal(a, b) for a, b in zip(mirrored, images, strict=True)]
    assert all(a or b for a, b in zip(turned, kept, strict=True))
    assert 15 < sum(turned) < 45
    moved = shift_and_flip(context, CMIConfig())(images, torch.Generator())
    assert not torch.equal(moved, images)


def test_an_inverted_generator_lives_for_one_batch() -> None:
    source = InvertedSource(nn.Sequential(nn.Linear(3, 4)), 3)
    generator = torch.Generator().manual_seed(0)
    targets = Targets(torch.tensor([0, 1]))
    weights = []
    for _ in range(2):
        source.begin(targets, generator)
        weights.append(source.module[0].weight.detach().clone())  # type: ignore[index]
        trained = [p for group in source.optimizer.param_groups for p in group["params"]]
        assert [tuple(p.shape) for p in trained] == [(4, 3), (4,), (2, 3)]
        assert source.optimizer.state_dict()["state"] == {}
    assert not torch.equal(*weights)
    assert source.state() == {}


def test_each_label_goes_through_its_own_noisy_layer() -> None:
    labels = torch.tensor([0, 0, 2, 1, 2, 0])
    assert occurrence(labels).tolist() == [0, 1, 0, 0, 1, 2]
    embeddings = spread_embeddings(3, 5, torch.Generator().manual_seed(0))
    source = LabelEmbeddingSource(nn.Identity(), embeddings, 4)
    source.begin(Targets(labels), torch.Generator().manual_seed(1))
    weights, biases = (p for group in source.optimizer.param_groups for p in group["params"])
    assert weights.shape == (3, 5, 4)
    assert not biases.any()
    with torch.no_grad():
        biases += seeded(3, 4)
    for row, (label, layer) in enumerate(zip(labels, (0, 1, 0, 0, 1, 2), strict=True)):
        expected = weights[layer].T @ embeddings[label] + biases[layer]
        assert torch.allclose(source.images()[row], expected, atol=1e-6)
    assert len(source.images().unique(dim=0)) == len(labels)


def test_embeddings_are_as_far_apart_as_there_is_room() -> None:
    few = spread_embeddings(6, 10, torch.Generator().manual_seed(0))
    assert torch.allclose(few @ few.T, torch.eye(6), atol=1e-6)
    many = spread_embeddings(200, 50, torch.Generator().manual_seed(0))
    assert torch.allclose(many.norm(dim=1), torch.ones(200))
    assert float((many @ many.T - torch.eye(200)).abs().max()) < 0.75


def test_a_nayer_generator_lives_for_its_batches() -> None:
    source = LabelEmbeddingSource(nn.Sequential(nn.Linear(4, 2)), torch.eye(3), 4, life=2)
    generator = torch.Generator().manual_seed(0)
    weights = []
    for _ in range(5):
        source.begin(Targets(torch.tensor([0, 1])), generator)
        weights.append(source.module[0].weight.detach().clone())  # type: ignore[index]
    same = [torch.equal(a, b) for a, b in itertools.pairwise(weights)]
    assert same == [True, False, True, False]


def test_adaptive_deep_inversion_competes_only_after_its_warm_up(published: Published) -> None:
    """Without a trained student its batches are those of DeepInversion; then they are not."""
    folder = published("digits_cnn", "full")
    teacher, _ = opened(folder)
    made = []
    for name in ("deep_inversion", "adaptive_deep_inversion"):
        recipe = dataclasses.replace(shrunk(recipe_of(name, folder)), steps=5)
        maker = Synthesizer(
            teacher, recipe, torch.Generator().manual_seed(0), linear_student(3, 64)
        )
        made.append([maker.make_batch(9).images for _ in range(2)])
    assert torch.equal(made[0][0], made[1][0])
    assert not torch.equal(made[0][1], made[1][1])
