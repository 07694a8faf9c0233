"""The weighted sum: what it asks of teacher, labels and layers, and that gradients arrive."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from dfkd_meta.distillation.losses import Lesson, Loss, losses
from dfkd_meta.distillation.objective import Objective, choose_losses
from dfkd_meta.errors import UsageError
from dfkd_meta.teachers import Teacher
from tests.distillation.nets import CLASSES, a_pool, a_teacher, built
from tests.distillation.test_pairs import hooks

ON_FEATURES = [name for name in losses.names() if losses.get(name).least_pairs]


def objective(
    weights: dict[str, float],
    teacher: Teacher | None = None,
    student: nn.Module | None = None,
    **settings: Any,
) -> Objective:
    parts = choose_losses(weights, settings.pop("options", {}))
    generator = torch.Generator().manual_seed(0)
    student = student or built("digits_cnn")
    return Objective(student, parts, generator, teacher=teacher, **settings)


def test_the_sum_is_weighted() -> None:
    teacher, student, pool = a_teacher(), built("digits_cnn").eval(), a_pool()
    whole = objective({"kd": 0.7, "hard": 0.3}, teacher, student, temperature=20.0)
    lesson = Lesson(student(pool.images), teacher(pool.images), pool.labels, 20.0)
    expected = 0.7 * losses.get("kd")()(lesson) + 0.3 * losses.get("hard")()(lesson)
    assert torch.allclose(whole(pool.images, pool.labels), expected)


def test_options_reach_their_loss() -> None:
    teacher, pool, student = a_teacher(), a_pool(), built("digits_cnn").eval()
    first = objective({"dkd": 1.0}, teacher, student, options={"dkd": {"alpha": 1, "beta": 0}})
    other = objective({"dkd": 1.0}, teacher, student, options={"dkd": {"alpha": 0, "beta": 1}})
    both = objective({"dkd": 1.0}, teacher, student, options={"dkd": {"alpha": 1, "beta": 1}})
    parts = [part(pool.images, pool.labels) for part in (first, other, both)]
    assert torch.allclose(parts[0] + parts[1], parts[2])
    assert not torch.allclose(parts[0], parts[1])


class Unusual(nn.Module):
    """Layers that ``run`` puts together in a correct way that few networks have."""

    def __init__(self, run: Callable[[Unusual, Tensor], Tensor], width: int) -> None:
        super().__init__()
        self.run = run
        self.volume = nn.Conv3d(1, 1, 1)
        self.conv = nn.Conv2d(1, width, 3, padding=1)
        self.bn = nn.BatchNorm2d(width)
        self.along = nn.Conv1d(8, width, 1)
        self.relu = nn.ReLU()
        self.distance = nn.MSELoss()
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.run(self, x).flatten(2).mean(2))
        return logits


def with_a_scalar(net: Unusual, x: Tensor) -> Tensor:
    x = net.relu(net.conv(x))
    return x + net.distance(x, x)


def with_volumes(net: Unusual, x: Tensor) -> Tensor:
    return net.relu(net.conv(net.relu(net.volume(x[:, None])).squeeze(1)))


def overwriting(net: Unusual, x: Tensor) -> Tensor:
    return functional.relu(net.bn(net.conv(x)), inplace=True)


def along_one_axis(net: Unusual, x: Tensor) -> Tensor:
    return net.relu(net.along(x[:, 0]))


@pytest.mark.parametrize(
    ("run", "named", "found"),
    [
        (with_a_scalar, None, "relu:output"),
        (with_volumes, None, "relu:output#1"),
        (overwriting, None, "conv:output"),
        (along_one_axis, "along", "along:output"),
        (along_one_axis, "relu", "relu:output"),
    ],
)
def test_unusual_networks_are_matched_where_they_can_be(
    run: Callable[[Unusual, Tensor], Tensor], named: str | None, found: str
) -> None:
    pool, pairs = a_pool(), None if named is None else [(named, named)]
    teacher, student = a_teacher(Unusual(run, 8)), Unusual(run, 4)
    part = objective({"fitnets": 1.0}, teacher, student, named=pairs)
    assert [(pair.teacher.id, pair.student.id) for pair in part.pairs] == [(found, found)]
    assert part.pairs[0].channels == (4, 8)
    assert torch.isfinite(part(pool.images, pool.labels))


def test_what_is_overwritten_cannot_be_named() -> None:
    teacher, student = a_teacher(Unusual(overwriting, 8)), Unusual(overwriting, 4)
    with pytest.raises(UsageError, match="the student overwrites 'bn' in place"):
        objective({"fitnets": 1.0}, teacher, student, named=[("conv", "bn")])


@pytest.mark.parametrize("name", losses.names())
def test_the_gradient_of_each_loss_reaches_student_and_projections(name: str) -> None:
    teacher, pool, student = a_teacher(), a_pool(), built("digits_cnn")
    part = objective({name: 1.0}, teacher, student)
    part(pool.images, pool.labels).backward()
    assert student.conv1.weight.grad is not None
    assert float(student.conv1.weight.grad.abs().sum()) > 0
    projections = list(part.projections[name].parameters())
    assert all(weight.grad is not None for weight in projections)
    assert bool(projections) == (name in ("fitnets", "fsp"))  # half the teacher's channels
    assert all(weight.grad is None for weight in teacher.module.parameters())
    assert hooks(student) == hooks(teacher.module) == 0


def test_a_new_loss_is_one_class() -> None:
    class Margin(Loss):
        """Hinge of the student's logits; here to be registered."""

        needs_teacher: ClassVar[bool] = False
        width: float = 1.0

        def __call__(self, lesson: Lesson) -> Tensor:
            return (self.width - lesson.student).relu().mean()

    losses.register("margin")(Margin)
    try:
        part = objective({"margin": 2.0}, options={"margin": {"width": 1e3}})
        assert float(part(a_pool().images, None).detach()) > 1e3
    finally:
        del losses._entries["margin"]


def test_features_are_taken_only_where_a_loss_uses_them() -> None:
    teacher, pool = a_teacher(), a_pool()
    both = objective({"kd": 1.0, "attention": 100.0, "fitnets": 1.0}, teacher)
    assert [len(both.use[name]) for name in ("kd", "attention", "fitnets")] == [0, 2, 3]
    lines = both.describe()
    assert lines[0].endswith("relu2 [16, 8, 8] -> student relu2 [8, 8, 8] (attention, fitnets)")
    assert lines[2].endswith("mean [32, 1, 1] -> student mean [16, 1, 1] (fitnets)")
    plain = objective({"kd": 1.0}, teacher)
    assert plain.pairs == []
    seen = []
    teacher.module.register_forward_hook(lambda m, a, out: seen.append(hooks(m)))
    for part in (plain, both):
        part(pool.images, pool.labels)
    assert seen[0] == 1 + 2  # this test's hook, and the two of a tap without places
    assert seen[1] > seen[0]


class Broken(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        pytest.fail("the teacher is asked")


def test_a_teacher_that_no_loss_needs_is_not_asked() -> None:
    labels_only = objective({"hard": 1.0}, a_teacher(Broken()))
    assert labels_only.teacher is None
    labels_only(a_pool().images, a_pool().labels)


@pytest.mark.parametrize(
    ("weights", "settings", "message", "hint"),
    [
        ({"kdd": 1.0}, {}, "no loss named 'kdd'", "kd"),
        ({"kd": 0.0}, {}, "no loss has a weight above 0", "losses.kd"),
        ({}, {}, "no loss has a weight above 0", "losses.kd"),
        ({"dkd": 1.0}, {"options": {"dkd": {"gamma": 1}}}, "no option 'gamma'", "alpha, beta"),
        ({"dkd": 1.0}, {"options": {"dkd": {"beta": -1}}}, "option 'beta'", None),
        ({"kd": 1.0}, {"options": {"dkd": {}}}, "loss_options speak of 'dkd'", "losses.dkd=1"),
        ({"kd": 1.0}, {"named": [("relu1", "relu1")]}, "no loss uses features", "fitnets"),
        ({"attention": 1.0}, {"named": [("mean", "mean")]}, "needs 1 or more", "a single position"),
        ({"fsp": 1.0}, {"named": [("relu1", "relu1")]}, "needs 2 or more", "name more"),
        ({"attention": 1.0}, {"named": [("relu1", "relu1"), ("fc:input", "fc:input")]},
         r"no loss can use the pair teacher fc:input \[32\]", "'fitnets' works"),
    ],
)  # fmt: skip
def test_what_cannot_be_trained_on_is_refused_before_training(
    weights: dict[str, float], settings: dict[str, Any], message: str, hint: str | None
) -> None:
    with pytest.raises(UsageError, match=message) as error:
        objective(weights, a_teacher(), **settings)
    assert hint is None or hint in str(error.value.hint)


@pytest.mark.parametrize("name", ON_FEATURES)
def test_flat_features_suit_fitnets_alone(name: str) -> None:
    teacher, student, pool = a_teacher("hinton1200"), built("hinton800", width=0.05), a_pool()
    if name == "fitnets":
        part = objective({name: 1.0}, teacher, student)
        assert float(part(pool.images, None).detach()) > 0
    else:
        with pytest.raises(UsageError, match="can use 0 of these: teacher relu1") as error:
            objective({name: 1.0}, teacher, student)
        assert "'fitnets' works" in str(error.value.hint)


def test_missing_teachers_and_labels() -> None:
    with pytest.raises(UsageError, match="the loss 'kd' needs a teacher"):
        objective({"hard": 1.0, "kd": 1.0})
    with pytest.raises(UsageError, match="the loss 'hard' needs labels"):
        objective({"kd": 1.0, "hard": 1.0}, a_teacher())(a_pool().images, None)


def test_one_seed_gives_one_set_of_projections() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    drawn = [objective({"fitnets": 1.0}, a_teacher()).projections for _ in range(2)]
    one, two = (torch.cat([p.flatten() for p in part.parameters()]) for part in drawn)
    assert torch.equal(one, two)
    assert torch.equal(before, torch.get_rng_state())
