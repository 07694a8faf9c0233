"""What the options of a training do: schedule, norms, averages, jitter, blends, every loss."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from torch import nn

from dfkd_meta.batches import SyntheticBatch, shuffled
from dfkd_meta.config import make_config
from dfkd_meta.distillation.config import TrainingConfig
from dfkd_meta.distillation.evaluation import accuracy
from dfkd_meta.distillation.optimization import Rule, choose_rules, limit_norms, one_cycle
from dfkd_meta.distillation.students import build_student
from dfkd_meta.distillation.training import fit
from dfkd_meta.errors import UsageError
from dfkd_meta.producer.train import TrainConfig, train_network
from dfkd_meta.teachers import Teacher
from tests.distillation.nets import (
    NormedDropped,
    a_pool,
    a_teacher,
    batch_stream,
    trained,
    trainer,
    weights_of,
)
from tests.support.published import blobs


@pytest.mark.parametrize("steps", [2, 3, 7, 100])
def test_one_cycle_is_that_of_torch(steps: int) -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0, momentum=0.9)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.3, total_steps=steps)
    for step in range(steps):
        group = optimizer.param_groups[0]
        expected = (group["lr"], group["momentum"])
        assert one_cycle(step, steps, 0.3) == pytest.approx(expected, rel=1e-12)
        optimizer.step()
        if step < steps - 1:
            schedule.step()


def names_by_rule(net: nn.Module, **settings: Any) -> dict[str, set[str]]:
    names = {weight: name for name, weight in net.named_parameters()}
    rules = choose_rules(TrainingConfig(**settings), net)
    return {rule.name: {names[weight] for weight in part} for rule, part in rules.items()}


def test_long_steps_are_for_weights_without_a_scale() -> None:
    found = names_by_rule(NormedDropped())
    assert found["adamw"] == {"conv2.weight", "head.weight"}
    assert found["sgd"] == {"conv.weight", "conv.bias", "bn.weight", "bn.bias", "conv2.bias",
                            "head.bias"}  # fmt: skip
    plain = nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3), nn.Linear(3, 2))
    assert set(names_by_rule(plain)) == {"adamw"}
    assert set(names_by_rule(NormedDropped(), optimizer="adamw")) == {"adamw"}
    other = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(4), nn.Linear(3, 2))
    assert set(names_by_rule(other)) == {"adamw"}  # that BatchNorm is not of this layer
    transposed = nn.Sequential(nn.ConvTranspose2d(2, 6, 3, groups=2), nn.BatchNorm2d(6))
    assert "0.weight" in names_by_rule(transposed)["sgd"]


def test_a_rate_goes_with_its_optimizer() -> None:
    with pytest.raises(UsageError, match="those of an optimizer"):
        make_config(TrainingConfig, {"learning_rate": 0.1})
    config = TrainingConfig(optimizer="sgd", learning_rate=0.1)
    assert list(choose_rules(config, NormedDropped())) == [Rule("sgd", 0.1, 5e-4, 5.0)]


def test_max_norm_bounds_every_hidden_unit_and_leaves_small_ones() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 2), nn.Flatten(), nn.Linear(8, 3), nn.Linear(3, 2))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([3.0, 0.1])[:, None, None, None].expand(2, 1, 2, 2))
        net[2].weight.fill_(1.0)
        net[3].weight.fill_(5.0)
    limit_norms(net, 2.0)
    assert net[0].weight.flatten(1).norm(dim=1).tolist() == pytest.approx([2.0, 0.2])
    assert net[2].weight.norm(dim=1).tolist() == pytest.approx([2.0] * 3)
    assert float(net[3].weight.detach().max()) == 5.0  # the layer of the logits is free


def test_max_norm_holds_after_training() -> None:
    settings = {"optimizer": "adamw", "learning_rate": 0.1}
    run = trainer(TrainingConfig(steps=4, batch_size=8, max_norm=0.4, **settings))
    run.train(batch_stream(run.config), 4)
    norms = run.finish().conv2.weight.detach().flatten(1).norm(dim=1)
    assert float(norms.max()) <= 0.4 + 1e-5
    assert float(norms.max()) == pytest.approx(0.4, abs=1e-3)


@pytest.mark.parametrize(
    ("losses", "dropout", "works"),
    [
        ({"kd": 1.0}, None, False),
        ({"kd": 0.5, "hard": 0.5}, None, False),
        ({"hard": 1.0}, None, True),
        ({"kd": 1.0}, True, True),
        ({"hard": 1.0}, False, False),
    ],
)
def test_dropout_rests_where_a_teacher_answers(
    losses: dict[str, float], dropout: bool | None, works: bool
) -> None:
    config = TrainingConfig(steps=3, batch_size=8, losses=losses, dropout=dropout)
    run = trainer(config)
    seen = []
    run.student.drop.register_forward_hook(
        lambda _, given, made: seen.append(not torch.equal(given[0], made))
    )
    run.train(batch_stream(config), 3)
    assert seen == [works] * 3
    assert run.student.bn.training  # only dropout rests


def test_the_average_is_the_recursion_written_out() -> None:
    config = TrainingConfig(steps=6, batch_size=8, ema=0.5)
    run = trainer(config)
    expected = {name: value.clone() for name, value in run.student.state_dict().items()}
    for step, batch in zip(range(1, 7), batch_stream(config), strict=False):
        run.step(batch)
        keep = min(0.5, (1 + step) / (10 + step))
        for name, value in run.student.state_dict().items():
            if value.is_floating_point():
                expected[name] = keep * expected[name] + (1 - keep) * value
            else:
                expected[name] = value.clone()
    last = weights_of(run.student)
    with run.finished() as student:
        on_the_way = weights_of(student)
    assert torch.equal(last, weights_of(run.student))
    averaged = run.finish().state_dict()
    assert torch.equal(on_the_way, weights_of(run.student))
    for name, value in averaged.items():
        assert torch.allclose(value, expected[name], atol=1e-6), name
    assert not torch.equal(last, weights_of(run.student))
    assert int(averaged["bn.num_batches_tracked"]) == 6


def seen_by(config: TrainingConfig, batch: SyntheticBatch, **settings: Any) -> torch.Tensor:
    """The inputs that the student is shown."""
    shown: list[torch.Tensor] = []
    run = trainer(config, **settings)
    run.student.register_forward_pre_hook(lambda _, args: shown.append(args[0]))
    run.step(batch)
    return shown[0]


def dots(rows: int = 200) -> SyntheticBatch:
    images = torch.zeros(rows, 1, 8, 8)
    images[:, 0, 4, 4] = 1
    return SyntheticBatch(images, torch.zeros(rows, dtype=torch.int64))


@pytest.mark.parametrize(
    ("settings", "reach"),
    [({}, 1), ({"shift": 0.25}, 2), ({"shift": 0.0}, 0), ({"jitter": 3}, 3),
     ({"jitter": 0, "shift": 0.4}, 0)],
)  # fmt: skip
def test_jitter_counts_pixels_and_takes_the_place_of_shift(
    settings: dict[str, Any], reach: int
) -> None:
    images = seen_by(TrainingConfig(mixup=0, cutmix=0, flip=False, **settings), dots())
    places = images.flatten(1).argmax(1)
    assert int((places // 8 - 4).abs().max()) == reach
    assert int((places % 8 - 4).abs().max()) == reach


def test_flat_inputs_cannot_jitter() -> None:
    run = trainer(TrainingConfig(losses={"hard": 1.0}, jitter=1, steps=2), student=nn.Linear(5, 3))
    with pytest.raises(UsageError, match="jitter moves images"):
        run.step(SyntheticBatch(torch.zeros(4, 5), torch.zeros(4, dtype=torch.int64)))


def test_blends_need_a_teacher() -> None:
    config = TrainingConfig(losses={"hard": 1.0}, mixup=1.0, cutmix=0, shift=0)
    assert torch.equal(seen_by(config, a_pool()), a_pool().images)
    taught = config.model_copy(update={"losses": {"hard": 0.5, "kd": 0.5}})
    assert not torch.equal(seen_by(taught, a_pool()), a_pool().images)


@pytest.mark.parametrize("cutmix", [0.0, 0.5])
def test_labels_of_mixed_images_are_mixed_with_them(cutmix: float) -> None:
    """Images that say their class everywhere: the labels a loss sees must say the same."""
    mixing = {"mixup": 1.0, "cutmix": cutmix, "shift": 0, "flip": False}
    config = TrainingConfig.model_validate({"losses": {"kd": 1.0, "hard": 1.0}, **mixing})
    classes = torch.arange(40) % 3
    said = nn.functional.one_hot(classes, 3).float()[:, :, None, None].expand(-1, -1, 8, 8)
    run = trainer(config)
    images, labels = run.views(SyntheticBatch(said.clone(), classes), run.generator)
    assert labels is not None
    assert labels.shape == (40, 3)
    assert torch.allclose(images.mean((2, 3)), labels, atol=1e-6)
    assert len(labels.unique()) > 20


def test_each_option_changes_the_student() -> None:
    plain = TrainingConfig(steps=5, batch_size=8)
    changes: list[dict[str, Any]] = [
        {"losses": {"mse": 1.0}}, {"temperature": 20.0}, {"jitter": 2}, {"mixup": 0.0},
        {"cutmix": 0.0}, {"max_norm": 0.1}, {"ema": 0.9}, {"optimizer": "adamw"},
        {"optimizer": "sgd"},
    ]  # fmt: skip
    reference = trained(plain)
    for change in changes:
        assert not torch.equal(trained(plain.model_copy(update=change)), reference), change
    decayed = plain.model_copy(update={"optimizer": "sgd", "weight_decay": 1.0})
    assert not torch.equal(trained(decayed), trained(plain.model_copy(update={"optimizer": "sgd"})))


@functools.cache
def teacher_of_blobs() -> Teacher:
    hard = TrainingConfig(losses={"hard": 1.0}, steps=60, batch_size=32, mixup=0, cutmix=0)
    return train_network("digits_cnn", blobs("train"), TrainConfig(width=0.25, training=hard))


@pytest.mark.parametrize(
    "losses",
    [None, {"kd": 0.7, "hard": 0.3}, {"soft_labels": 1.0, "hard": 0.07}, {"mse": 1.0},
     {"dkd": 1.0}, {"dist": 1.0}, {"kd": 1.0, "attention": 100.0, "fitnets": 1.0, "fsp": 1.0}],
)  # fmt: skip
def test_students_learn_by_every_loss(losses: dict[str, float] | None) -> None:
    """From a teacher of the three blobs; a guess is right once in three."""
    teacher, data = teacher_of_blobs(), blobs("train")
    assert data.labels is not None
    images = (data.read(slice(None)) - torch.tensor(teacher.inputs.mean)) / teacher.inputs.std[0]
    pool = SyntheticBatch(images, torch.from_numpy(data.labels))
    config = TrainingConfig(losses=losses, steps=160, batch_size=32)
    generator = torch.Generator().manual_seed(0)
    student = build_student("half", teacher, seed=0).module
    stream = shuffled(pool, batch_size=32, generator=generator)
    fit(student, stream, config, generator, teacher=teacher)
    assert accuracy(student, blobs("test"), teacher.inputs) > 0.9


class Sides(nn.Module):
    """Its class says whether the left or the right of an image is brighter, or both are alike."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        left, right = (half.mean((1, 2, 3)) for half in x.chunk(2, 3))
        return torch.stack([left - right, right - left, 0.1 - (left - right).abs()], 1)


@pytest.mark.parametrize("told", [None, True, False])
def test_images_are_mirrored_where_the_teacher_knows_them_mirrored(told: bool | None) -> None:
    teacher = a_teacher(Sides())
    ramp = torch.linspace(0, 1, 8).expand(64, 1, 8, 8).contiguous()
    for images, known in ((ramp, False), (ramp + ramp.flip(3) + 0.001 * ramp, True)):
        config = TrainingConfig(steps=4, batch_size=8, flip=told, shift=0, mixup=0, cutmix=0)
        run = trainer(config, teacher=teacher)
        seen = run.views(SyntheticBatch(images), run.generator)[0]
        mirrored = (seen == images.flip(3)).flatten(1).all(1)
        assert run.state()["flip"] == (known if told is None else told)
        assert bool(mirrored.any()) == run.views.flip
        assert not mirrored.all()
