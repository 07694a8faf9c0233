"""DAFL, DFQ and ZSKT: one generator beside the student for the whole run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dfkd_meta.distillation.students import build_student
from dfkd_meta.errors import MethodError
from dfkd_meta.sidecar import InputSpec, OutputSpec, Sidecar, Tap, read_sidecar
from dfkd_meta.synthesis.engine import Synthesizer
from dfkd_meta.synthesis.gaussians import ClassGaussians
from dfkd_meta.synthesis.guard import LEAST_SPREAD, relative_spread
from dfkd_meta.synthesis.methods.dafl import activation_terms
from dfkd_meta.synthesis.recipe import MethodContext, Recipe, methods
from dfkd_meta.synthesis.targets import Targets
from dfkd_meta.synthesis.terms.base import StepState
from dfkd_meta.synthesis.terms.gaussian_divergence import GaussianDivergence
from dfkd_meta.synthesis.terms.recorded_moments import RecordedMoments
from dfkd_meta.teachers import Teacher, freeze, teacher_from_sidecar

Published = Callable[[str, str], Path]
ONLINE = ("dafl", "dfq", "zskt")
BATCH = 24


@pytest.fixture
def digits(published: Published) -> tuple[Teacher, Sidecar]:
    folder = published("digits_cnn", "full")
    sidecar = read_sidecar(folder)
    return teacher_from_sidecar(folder, sidecar), sidecar


def recipe_of(name: str, teacher: Teacher, sidecar: Sidecar, **options: Any) -> Recipe:
    context = MethodContext(teacher, sidecar, torch.device("cpu"))
    return methods.get(name).recipe(context, {"batch_size": BATCH, **options})


def synthesizer(recipe: Recipe, teacher: Teacher, seed: int = 0) -> Synthesizer:
    student = build_student("half", teacher, seed=0).module
    return Synthesizer(teacher, recipe, torch.Generator().manual_seed(seed), student)


def weights(recipe: Recipe) -> list[Tensor]:
    module = recipe.source.module  # type: ignore[attr-defined]
    return [parameter.detach().clone() for parameter in module.parameters()]


@pytest.mark.parametrize("name", ONLINE)
def test_gradients_reach_every_layer_of_the_generator(
    name: str, digits: tuple[Teacher, Sidecar]
) -> None:
    teacher, sidecar = digits
    recipe = recipe_of(name, teacher, sidecar, **({"warm_up": 0} if name == "dfq" else {}))
    before = weights(recipe)
    synthesizer(recipe, teacher).make_batch(BATCH)
    assert all(not torch.equal(a, b) for a, b in zip(before, weights(recipe), strict=True))


def test_dafl_learns_to_make_clear_inputs_of_every_class(digits: tuple[Teacher, Sidecar]) -> None:
    teacher, sidecar = digits
    run = synthesizer(recipe_of("dafl", teacher, sidecar, learning_rate=0.01), teacher)
    made = [run.make_batch(BATCH) for _ in range(240)][-20:]
    batch = made[-1]
    with torch.no_grad():
        p = torch.cat([teacher(batch.images) for batch in made]).softmax(1)
    assert float(p.amax(1).mean()) > 0.6
    assert float(p.mean(0).min()) > 0.15
    assert relative_spread(batch.images) > 0.1
    assert run.notes == []
    assert batch.labels is None


def test_an_adversary_finds_inputs_that_the_student_gets_wrong(
    digits: tuple[Teacher, Sidecar],
) -> None:
    teacher, sidecar = digits
    run = synthesizer(recipe_of("zskt", teacher, sidecar), teacher)
    assert run.student is not None
    gaps = []
    for _ in range(40):
        images = run.make_batch(BATCH).images
        with torch.no_grad():
            log_p, log_q = (net(images).log_softmax(1) for net in (teacher, run.student.eval()))
        gaps.append(float((log_p.exp() * (log_p - log_q)).sum(1).mean()))
    most = np.log(3)  # where the teacher is sure and the student, untrained, has no idea
    assert most - np.mean(gaps[-5:]) < (most - np.mean(gaps[:5])) / 2


def test_a_generator_driven_to_death_is_restarted_then_given_up(
    digits: tuple[Teacher, Sidecar],
) -> None:
    """A rate far too large, without the term that keeps the classes apart."""
    teacher, sidecar = digits
    recipe = recipe_of("dafl", teacher, sidecar, learning_rate=100.0, standardized=False)
    run = synthesizer(recipe.reweighted({"balance": 0.0}), teacher)
    with pytest.raises(MethodError, match="died again after"):
        for _ in range(100):
            run.make_batch(BATCH)
    assert len(run.notes) == run.guard.restarts > 0
    assert "started afresh" in run.notes[0]


@pytest.mark.parametrize("name", [*ONLINE, "fast_dfkd", "nayer"])
def test_the_student_never_sees_what_a_dying_generator_made(
    name: str, digits: tuple[Teacher, Sidecar]
) -> None:
    teacher, sidecar = digits
    run = synthesizer(recipe_of(name, teacher, sidecar), teacher)
    run.make_batch(BATCH)
    with torch.no_grad():
        for parameter in run.recipe.source.module.parameters():  # type: ignore[attr-defined]
            parameter.zero_()  # from now on all inputs are one
    batch = run.make_batch(BATCH)
    assert run.guard.restarts == 1
    assert "batch 1: " in run.notes[-1]
    assert len(batch) == BATCH
    assert relative_spread(batch.images) > LEAST_SPREAD
    assert run.made == 2


def test_dfq_takes_recorded_moments_where_there_is_no_batchnorm(published: Published) -> None:
    folder = published("hinton800", "full")
    sidecar = read_sidecar(folder)
    teacher = teacher_from_sidecar(folder, sidecar)
    recipe = recipe_of("dfq", teacher, sidecar)
    assert "no BatchNorm" in recipe.notes[0]
    assert recipe.components().keys() == {"adv", "bn", "oh", "balance", "generator"}
    assert "fc2:output" in {tap.id for tap in recipe.terms["bn"].term.taps}


def test_zskt_asks_for_attention_only_where_there_are_maps(published: Published) -> None:
    asked = {}
    for architecture in ("digits_cnn", "hinton800"):
        folder = published(architecture, "full")
        sidecar = read_sidecar(folder)
        teacher = teacher_from_sidecar(folder, sidecar)
        asked[architecture] = recipe_of("zskt", teacher, sidecar)
    assert asked["digits_cnn"].student_losses == {"kd": 1.0, "attention": 250.0}
    assert asked["digits_cnn"].notes == ()
    assert asked["hinton800"].student_losses == {"kd": 1.0}
    assert "without attention transfer" in asked["hinton800"].notes[0]


@pytest.mark.parametrize(
    ("options", "kept"),
    [({}, 256), ({"batch_size": 24}, 24), ({"batch_size": 24, "capacity": 100}, 100)],
)
def test_zskt_shows_the_student_one_batch_at_a_time(
    digits: tuple[Teacher, Sidecar], options: dict[str, int], kept: int
) -> None:
    recipe = methods.get("zskt").recipe(MethodContext(*digits, torch.device("cpu")), options)
    assert recipe.rounds is not None
    assert recipe.rounds.capacity == kept
    assert recipe.rounds.student_steps == 10


def test_a_teacher_without_a_hidden_layer_has_no_activation_term() -> None:
    inputs = InputSpec(shape=[4], axes=["f"], value_range=[0.0, 1.0], mean=[0.0], std=[1.0])
    module = freeze(nn.Identity())
    teacher = Teacher(module, "local", "x", {}, inputs, OutputSpec(num_classes=4))
    context = MethodContext(teacher, None, torch.device("cpu"))  # type: ignore[arg-type]
    assert activation_terms(context, 1.0) == {}


def test_gaussian_divergence_equals_the_formula() -> None:
    tap = Tap(
        id="c:input", module="c", side="input", axes=["c", "h", "w"], shape=[3, 4, 4],
        linear_in_input=False,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(2)
    activation = 2 * torch.randn(6, 3, 4, 4, generator=generator) + 1
    mean, variance = torch.randn(1, 3, generator=generator), torch.tensor([[0.5, 2.0, 0.0]])
    record = RecordedMoments(tap, "channel", ClassGaussians(mean, variance))
    rows = activation.permute(0, 2, 3, 1).reshape(-1, 3).double().numpy()
    floor = 0.05 * variance.double().numpy().mean()
    v, s = rows.var(0) + floor, variance[0].double().numpy() + floor
    gap = rows.mean(0) - mean[0].double().numpy()
    expected = ((gap**2 + v) / (2 * s) - 0.5 * np.log(v / s) - 0.5).mean()
    images = torch.zeros(6, 1)
    state = StepState(
        images=images,
        view=images,
        logits=torch.zeros(6, 2),
        activations={tap.id: activation},
        targets=Targets(torch.zeros(6, dtype=torch.int64)),
        generator=generator,
    )
    assert float(GaussianDivergence((record, record))(state)) == pytest.approx(expected, rel=1e-4)


def test_gaussian_divergence_of_equal_moments_is_zero(digits: tuple[Teacher, Sidecar]) -> None:
    teacher, sidecar = digits
    term = recipe_of("dfq", teacher, sidecar).terms["bn"].term
    assert isinstance(term, GaussianDivergence)
    same = []
    for record in term.records:
        sign = torch.tensor([1.0, -1.0])[:, None]
        rows = record.statistics.mean + sign * record.variance.sqrt()
        activation = rows[:, :, None, None].expand(-1, -1, *record.tap.shape[1:])
        images = torch.zeros(2, 1)
        state = StepState(
            images=images,
            view=images,
            logits=torch.zeros(2, 3),
            activations={record.tap.id: activation},
            targets=Targets(torch.zeros(2, dtype=torch.int64)),
            generator=torch.Generator(),
        )
        same.append(float(dataclasses.replace(term, records=(record,))(state)))
    assert same == pytest.approx([0.0] * len(same), abs=1e-5)
