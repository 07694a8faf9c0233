"""Laws of a budget: counts grow with the time, fill it, and finding them disturbs nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor, nn

from dfkd_meta.consumer import budget, pipeline
from dfkd_meta.consumer.budget import (
    MOST_IMAGES,
    SMALLEST,
    Costs,
    filling_turn,
    fitting_counts,
    plan_budget,
    seconds_of,
)
from dfkd_meta.consumer.pipeline import DistillConfig
from dfkd_meta.consumer.run import run_method
from dfkd_meta.errors import UsageError
from dfkd_meta.sidecar import Sidecar, read_sidecar
from dfkd_meta.synthesis.recipe import Recipe, Weighted
from dfkd_meta.synthesis.rounds import Rounds
from dfkd_meta.synthesis.sources.pixels import PixelSource, gaussian_start
from dfkd_meta.synthesis.targets import TargetSampler
from dfkd_meta.synthesis.terms.base import Term
from dfkd_meta.teachers import Teacher, teacher_from_sidecar
from tests.support.small_recipes import write_blobs

Published = Callable[[str, str], Path]
CPU = torch.device("cpu")
seconds = st.floats(0.1, 10_000)
costs = st.builds(Costs, st.floats(1e-3, 10), st.floats(1e-4, 1))
rounds = st.builds(Rounds, st.integers(1, 50), st.booleans(), st.integers(0, 20))


class Flat(Term):
    def __call__(self, state: object) -> Tensor:
        return torch.zeros(())


def recipe(**more: object) -> Recipe:
    shape = (1, 8, 8)
    made = Recipe(
        targets=TargetSampler((0, 1, 2), CPU),
        source=PixelSource(gaussian_start(shape, CPU)),
        images=500,
        batch_size=50,
        terms={"flat": Weighted(Flat(), 1.0)},
        steps=20,
    )
    return dataclasses.replace(made, **more)  # type: ignore[arg-type]


@given(costs, seconds, seconds, st.floats(0.05, 0.95), st.none() | rounds)
def test_counts_are_at_least_one_and_grow_with_the_time(
    cost: Costs, one: float, other: float, share: float, turns: Rounds | None
) -> None:
    small, large = sorted((one, other))
    made = recipe(rounds=turns)
    few, many = (fitting_counts(made, cost, time, share) for time in (small, large))
    assert few[1] >= 1
    assert few[1] <= many[1]
    if turns is None:
        assert few[0] is not None
        assert many[0] is not None
        assert 1 <= few[0] <= many[0] <= MOST_IMAGES
    else:
        assert few[0] is None


def predicted_seconds(recipe: Recipe, costs: Costs, images: int | None, steps: int) -> float:
    """How long a run with these counts takes."""
    if recipe.rounds is not None:
        batches: float = recipe.rounds.warm_up - (-steps // recipe.rounds.student_steps)
    else:
        batches = 0 if recipe.given is not None else (images or recipe.images) / recipe.batch_size
    return batches * costs.batch + steps * costs.step


@given(costs, seconds, st.floats(0.05, 0.95), st.none() | rounds)
def test_the_counts_fill_the_time(
    cost: Costs, time: float, share: float, turns: Rounds | None
) -> None:
    made = recipe(rounds=turns)
    images, steps = fitting_counts(made, cost, time, share)
    spent = predicted_seconds(made, cost, images, steps)
    if turns is not None:
        least = cost.step + cost.batch * (turns.warm_up + 1)
        assert spent <= max(time, least) * (1 + 1e-9)
        assert predicted_seconds(made, cost, None, steps + 1) >= time * (1 - 1e-9)
        return
    piece = cost.step + cost.batch  # nothing smaller can be added
    assert spent <= max(time, piece) + piece
    if images != MOST_IMAGES and steps > 1:
        assert spent >= time - piece


@given(costs, seconds, st.floats(0.05, 0.95))
def test_inputs_that_need_no_optimization_keep_their_number(
    cost: Costs, time: float, share: float
) -> None:
    for made in (recipe(steps=0), recipe(terms={})):
        images, steps = fitting_counts(made, cost, time, share)
        assert images is None
        spare = time - cost.batch * made.images / made.batch_size
        assert steps == max(1, int(spare / cost.step))


class Ticking:
    """A clock that only moves when the teacher works: ``tick`` for every input it sees."""

    def __init__(self, tick: float) -> None:
        self.now = 0.0
        self.tick = tick
        self.passes = 0

    def __call__(self) -> float:
        return self.now

    def count(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self.now += self.tick * len(inputs[0])
        self.passes += 1


@pytest.fixture
def teacher(published: Published) -> tuple[Teacher, Sidecar]:
    folder = published("digits_cnn", "full")
    sidecar = read_sidecar(folder)
    return teacher_from_sidecar(folder, sidecar), sidecar


def settings(**more: object) -> DistillConfig:
    training = {"batch_size": 20, "steps": 9}
    options = {"steps": 12, "batch_size": 30}
    found = {"method": "deep_inversion", "training": training, "options": options, **more}
    return DistillConfig.model_validate(found)


def in_turns(monkeypatch: pytest.MonkeyPatch, rounds: Rounds) -> None:
    """From now on every recipe takes turns with the student."""
    make = budget.make_recipe

    def changed(*arguments: object) -> Recipe:
        return dataclasses.replace(make(*arguments), rounds=rounds)  # type: ignore[arg-type]

    monkeypatch.setattr(budget, "make_recipe", changed)


@pytest.mark.parametrize("share", [0.25, 0.5])
def test_measured_on_a_clock_of_forward_passes(
    teacher: tuple[Teacher, Sidecar], share: float
) -> None:
    """With 1 ms for each input the teacher sees, every count can be worked out by hand."""
    clock = Ticking(1e-3)
    with teacher[0].module.register_forward_hook(clock.count):
        planned = plan_budget(*teacher, settings(), CPU, 60.0, share=share, clock=clock)
    # an image costs 12 steps, a training step 20 answers of the teacher
    assert planned.images == pytest.approx(60 * share / (12 * 1e-3), rel=0.15)
    assert planned.images is not None
    assert planned.training.steps == pytest.approx(60 * (1 - share) / (20 * 1e-3), rel=0.15)
    assert clock.now < 0.25 * 60  # the measurement is short
    clock = Ticking(1e-3)
    with teacher[0].module.register_forward_hook(clock.count):
        doubled = plan_budget(*teacher, settings(), CPU, 120.0, share=share, clock=clock)
    assert doubled.images == pytest.approx(2 * planned.images, rel=0.1)


def test_a_budget_asks_for_no_more_inputs_than_fit(
    teacher: tuple[Teacher, Sidecar], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time that they would have taken trains."""
    steps = []
    for room in (10**9, 40):
        monkeypatch.setattr(pipeline, "POOL_NUMBERS", room * 64)
        clock = Ticking(1e-3)
        with teacher[0].module.register_forward_hook(clock.count):
            planned = plan_budget(*teacher, settings(), CPU, 10.0, clock=clock)
        assert planned.images is not None
        assert (planned.images == room) is (room == 40)
        steps.append(planned.training.steps)
    assert steps[1] > steps[0]


def test_only_the_counts_change(teacher: tuple[Teacher, Sidecar]) -> None:
    clock = Ticking(1e-3)
    with teacher[0].module.register_forward_hook(clock.count):
        planned = plan_budget(*teacher, settings(), CPU, 3.0, clock=clock)
    training = planned.training.model_copy(update={"steps": 9})
    assert planned.model_copy(update={"images": None, "training": training}) == settings()


@given(costs, st.floats(0.05, 0.5), st.floats(1, 100))
def test_whole_turns_fill_the_time(cost: Costs, share: float, batches: float) -> None:
    """A batch takes as long as a hundred student steps or more, as it does."""
    assume(abs(batches % 1 - 0.5) > 1e-6)  # a half is rounded either way
    cost = Costs(cost.batch, min(cost.step, cost.batch / 100))
    time = batches * cost.batch / share
    turn = filling_turn(cost, time, share)
    made = recipe(rounds=Rounds(turn))
    steps = fitting_counts(made, cost, time, share)[1]
    assert steps == pytest.approx(turn * round(batches), abs=1)
    assert time - predicted_seconds(made, cost, None, steps) <= (batches + 1) * cost.step


def test_planning_disturbs_no_random_stream(teacher: tuple[Teacher, Sidecar]) -> None:
    """The same run before and after planning, and torch's own stream where it was."""
    whole = run_method(*teacher, settings(images=30), CPU)
    before = torch.get_rng_state()
    plan_budget(*teacher, settings(), CPU, 1.0, clock=iter(range(10**6)).__next__)
    assert torch.equal(before, torch.get_rng_state())
    again = run_method(*teacher, settings(images=30), CPU)
    theirs = again.student.module.state_dict()
    assert all(torch.equal(v, theirs[k]) for k, v in whole.student.module.state_dict().items())
    assert not teacher[0].module.training


def test_given_inputs_leave_all_to_training(
    teacher: tuple[Teacher, Sidecar], tmp_path: Path
) -> None:
    data = {"data": str(write_blobs(tmp_path))}
    clock = Ticking(1e-3)
    with teacher[0].module.register_forward_hook(clock.count):
        config = settings(method="real_data", options=data)
        planned = plan_budget(*teacher, config, CPU, 10.0, clock=clock)
    assert planned.images is None
    assert planned.training.steps == 500


@pytest.mark.parametrize("share", [None, 0.4])
@pytest.mark.parametrize("told", [None, 4])
def test_turns_count_their_batches(
    teacher: tuple[Teacher, Sidecar],
    monkeypatch: pytest.MonkeyPatch,
    share: float | None,
    told: int | None,
) -> None:
    """Rounds of one batch (12 steps of 30 inputs) and 4 student steps (20 inputs each)."""
    in_turns(monkeypatch, Rounds(4, warm_up=2, share=share))
    clock = Ticking(1e-3)
    with teacher[0].module.register_forward_hook(clock.count):
        config = settings(turn=told)
        planned = plan_budget(*teacher, config, CPU, 100.0, clock=clock)
    assert planned.images is None
    if share is not None and told is None:  # 0.4 for a batch, 0.6 for the steps after it
        assert planned.turn == pytest.approx(12 * 30 / 20 * 0.6 / 0.4, rel=0.1)
        return
    assert planned.turn == told
    batch, step = 12 * 30e-3, 20e-3
    assert planned.training.steps == pytest.approx((100 - 2 * batch) / (step + batch / 4), rel=0.15)


def test_a_warm_up_that_takes_half_the_time_is_refused(
    teacher: tuple[Teacher, Sidecar], monkeypatch: pytest.MonkeyPatch
) -> None:
    in_turns(monkeypatch, Rounds(student_steps=4, warm_up=20))
    clock = Ticking(1e-3)
    with teacher[0].module.register_forward_hook(clock.count):
        with pytest.raises(UsageError, match=r"21 batches of about 0\.4 s") as caught:
            plan_budget(*teacher, settings(), CPU, 14.0, clock=clock)
        plan_budget(*teacher, settings(), CPU, 18.0, clock=clock)
    # Those among its options that make first batches shorter: it has no options.warm_up.
    assert str(caught.value.hint).endswith("options.batch_size, options.steps")


@pytest.mark.parametrize(("seconds", "size"), [(240.0, 50), (120.0, SMALLEST), (2_000.0, None)])
def test_batches_that_take_long_are_made_smaller(
    teacher: tuple[Teacher, Sidecar],
    monkeypatch: pytest.MonkeyPatch,
    seconds: float,
    size: int | None,
) -> None:
    """Two batches of 250 inputs and 60 steps before the first student step: 300 s at 10 ms."""
    in_turns(monkeypatch, Rounds(4, warm_up=1, share=0.5))
    clock = Ticking(0.01)
    with teacher[0].module.register_forward_hook(clock.count):
        config = settings(options={"steps": 60})
        planned = plan_budget(*teacher, config, CPU, seconds, clock=clock)
        told = settings(options={"steps": 60, "batch_size": 30})
        kept = plan_budget(*teacher, told, CPU, seconds, clock=clock)
    assert planned.options.get("batch_size") == (size and pytest.approx(size, abs=2))
    assert kept.options["batch_size"] == 30


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("5m", 300), (" 1.5h", 5400)])
def test_durations(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "5", "m", "0m", "-5m", "5 days", "nanm", "infh"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(UsageError, match="no duration"):
        seconds_of(text)
