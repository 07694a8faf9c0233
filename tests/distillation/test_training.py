"""The training loop: seeded, cut and resumed at any step without a trace, and its options."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from dfkd_meta.augmentation import draw_blend, draw_paste, shift_each
from dfkd_meta.checkpoint import load_state, save_state
from dfkd_meta.distillation.config import TrainingConfig
from dfkd_meta.distillation.training import fit
from dfkd_meta.errors import MethodError, UsageError
from tests.distillation.nets import (
    NormedDropped,
    a_pool,
    a_teacher,
    batch_stream,
    built,
    trained,
    trainer,
    weights_of,
)
from tests.support.told import Told

EVERYTHING = TrainingConfig(
    losses={"kd": 0.5, "hard": 0.2, "fitnets": 0.1, "attention": 10.0, "fsp": 0.1, "dkd": 0.1},
    steps=9, batch_size=8, ema=0.9, max_norm=0.8, jitter=1, dropout=True,
)  # fmt: skip


@pytest.mark.parametrize("losses", [None, {"hard": 1.0}, EVERYTHING.losses])
def test_one_seed_gives_one_student_bit_for_bit(losses: dict[str, float] | None) -> None:
    config = TrainingConfig(losses=losses, steps=5, batch_size=8)
    assert torch.equal(trained(config), trained(config))
    assert not torch.equal(trained(config), trained(config, seed=1))


def test_global_randomness_is_neither_used_nor_disturbed() -> None:
    one, two = trainer(EVERYTHING), trainer(EVERYTHING)
    torch.manual_seed(1)
    one.train(batch_stream(EVERYTHING), 3)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    two.train(batch_stream(EVERYTHING), 3)
    assert torch.equal(weights_of(one.finish()), weights_of(two.finish()))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("optimizer", [None, "adamw", "sgd"])
@pytest.mark.parametrize("through_a_file", [False, True])
def test_a_run_cut_in_two_ends_where_the_whole_one_ends(
    optimizer: str | None, through_a_file: bool, tmp_path: Path
) -> None:
    config = EVERYTHING.model_copy(update={"optimizer": optimizer})
    whole, first, second = trainer(config), trainer(config), trainer(config, seed=99)
    batches = [batch for batch, _ in zip(batch_stream(config), range(7), strict=False)]
    whole.train(iter(batches), 7)
    first.train(iter(batches[:3]), 3)
    state = first.state()
    first.train(iter(batches[3:]), 4)  # what goes on after the save does not reach into it
    if through_a_file:
        save_state(tmp_path / "run", state)
        state = load_state(tmp_path / "run")
    second.load_state(state)
    second.train(iter(batches[3:5]), 2)
    second.step(batches[5])
    second.step(batches[6])
    assert second.steps_done == whole.steps_done == 7
    states = [run.state() for run in (whole, first, second)]
    for other in states[1:]:
        assert_equal(states[0], other)
    assert torch.equal(weights_of(whole.finish()), weights_of(second.finish()))


def assert_equal(one: Any, two: Any) -> None:
    assert type(one) is type(two)
    if isinstance(one, dict):
        assert one.keys() == two.keys()
        for key in one:
            assert_equal(one[key], two[key])
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, two)
    else:
        assert one == two


def test_moments_are_laid_out_as_their_weights_after_loading() -> None:
    """Where they are not, torch takes the weights one by one."""
    first, second = (trainer(EVERYTHING) for _ in range(2))
    for run in (first, second):
        run.student.to(memory_format=torch.channels_last)
    first.train(batch_stream(EVERYTHING), 1)
    second.load_state(first.state())
    found = 0
    for _, _, optimizer in second.optimizer.parts:
        for weight, moments in optimizer.state.items():
            for moment in moments.values():
                if moment.shape == weight.shape:
                    assert moment.stride() == weight.stride()
                    found += weight.dim() == 4 and not weight.is_contiguous()
    assert found


def test_a_state_can_be_loaded_twice() -> None:
    config = EVERYTHING
    start = trainer(config)
    start.train(batch_stream(config), 2)
    state, ends = start.state(), []
    for seed in (5, 6):
        run = trainer(config, seed=seed)
        run.load_state(state)
        run.train(batch_stream(config), 3)
        ends.append(weights_of(run.finish()))
    assert torch.equal(*ends)


def test_the_config_decides_before_the_method_and_the_method_before_hinton() -> None:
    names = [
        [part.name for part in trainer(TrainingConfig(losses=own), losses=asked).objective.parts]
        for own, asked in [
            (None, None),
            (None, {"mse": 1.0}),
            ({"hard": 1.0, "dist": 0.0}, {"mse": 1.0}),
        ]
    ]
    assert names == [["kd"], ["mse"], ["hard"]]


def test_matched_layers_are_reported_once_before_training() -> None:
    run, told = trainer(EVERYTHING), Told()
    for _ in range(2):
        run.train(batch_stream(EVERYTHING), 1, told)
    assert told.steps == run.notes
    assert [note.split(" (")[0] for note in run.notes] == [
        "matched layers: teacher relu2 [16, 8, 8] -> student relu [4, 8, 8]",
        "matched layers: teacher relu3 [32, 4, 4] -> student conv2 [4, 4, 4]",
    ]
    assert [pair.teacher.module for pair in run.objective.pairs] == ["relu2", "relu3"]


def test_pairs_can_be_named() -> None:
    config = TrainingConfig(losses={"fitnets": 1.0}, pairs=[("relu1", "bn")], steps=2)
    assert [str(pair) for pair in trainer(config).objective.pairs] == [
        "teacher relu1 [8, 8, 8] -> student bn [4, 8, 8]"
    ]


def test_the_student_ends_in_evaluation_mode() -> None:
    config = TrainingConfig(steps=1, batch_size=8)
    student = NormedDropped()
    made = fit(student, batch_stream(config), config, torch.Generator(), teacher=a_teacher())
    assert made is student
    assert not any(part.training for part in student.modules())


def usual_sgd(weights: list[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(weights, lr=0.5, momentum=0.9, nesterov=True, weight_decay=5e-4)


def usual_adam(weights: list[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.AdamW(weights, lr=6e-3, weight_decay=0.0)


@pytest.mark.parametrize("architecture", ["digits_cnn", "hinton800"])
def test_defaults_suit_the_weights_and_follow_one_cycle_with_hintons_loss(
    architecture: str,
) -> None:
    """The same in a few lines of torch, with the draws taken in the trainer's order."""
    config = TrainingConfig(steps=6, batch_size=8, flip=False, dropout=False)
    teacher, student, plain = a_teacher(), built(architecture), built(architecture)
    for layer in plain.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0
    generator = torch.Generator().manual_seed(0)
    fit(student, batch_stream(config), config, generator, teacher=teacher)

    generator.manual_seed(0)
    normed = architecture == "digits_cnn"  # all its weights but those of the last layer
    bold = [w for name, w in plain.named_parameters() if normed and name != "fc.weight"]
    rest = [w for name, w in plain.named_parameters() if not normed or name == "fc.weight"]
    optimizers = [usual_sgd(bold), usual_adam(rest)] if normed else [usual_adam(rest)]
    schedules = [
        torch.optim.lr_scheduler.OneCycleLR(one, one.param_groups[0]["lr"], total_steps=6)
        for one in optimizers
    ]
    plain.train()
    for batch, _ in zip(batch_stream(config), range(6), strict=False):
        images = shift_each(batch.images, (1, 1), generator)
        blend = draw_blend(8, 0.5, generator)
        paste = draw_paste(images.shape, 0.5, generator)
        assert blend is not None
        assert paste is not None
        images = paste(blend(images))
        torch.randint(2**62, (1,), generator=generator)  # for layers that draw
        soft = [torch.log_softmax(net(images) / 4.0, 1) for net in (plain, teacher)]
        loss = 16 * nn.functional.kl_div(*soft, reduction="batchmean", log_target=True)
        plain.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(bold, 5.0)
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            schedule.step()
    assert torch.allclose(weights_of(student), weights_of(plain), atol=1e-6)


def test_inputs_that_end_too_early_are_an_error() -> None:
    with pytest.raises(MethodError, match="ended after 1 steps"):
        trainer(TrainingConfig(steps=2)).train(iter([a_pool(8)]), 2)


def test_losses_that_leave_the_last_layer_alone_are_noted() -> None:
    config = TrainingConfig(losses={"fitnets": 1.0}, steps=2)
    assert "no loss looks at the logits" in trainer(config).notes[-1]
    assert trainer(TrainingConfig()).notes == []


def test_a_loss_that_explodes_is_an_error() -> None:
    with pytest.raises(MethodError, match="training loss became"):
        trained(TrainingConfig(steps=20, batch_size=8, optimizer="sgd", learning_rate=1e30))


def test_there_is_no_step_after_the_last() -> None:
    run = trainer(TrainingConfig(steps=2, batch_size=8))
    run.train(batch_stream(run.config), 2)
    with pytest.raises(UsageError, match="all 2 steps are done"):
        run.step(a_pool(8))
