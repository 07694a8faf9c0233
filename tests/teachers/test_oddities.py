"""Networks that do with little of what others do are served, or refused in words that help."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from dfkd_meta.errors import TeacherError
from dfkd_meta.sidecar.manifest import OutputSpec
from dfkd_meta.teachers import (
    ActivationTap,
    Teacher,
    default_taps,
    freeze,
    oddities,
    probe,
    suited_layout,
)
from tests.teachers.conftest import image_spec

SPEC = image_spec([1, 4, 6], [0.5], [0.5])


def teacher_of(module: nn.Module) -> Teacher:
    return Teacher(freeze(module), "local", "test", {}, SPEC, OutputSpec(num_classes=3))


class Flattening(nn.Module):
    """Flattens its maps by ``flatten``, a function of a tensor `n c h w`."""

    def __init__(self, flatten: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 2, 3, padding=1), nn.Linear(48, 3)
        self.flatten = flatten

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.flatten(torch.relu(self.conv(x))))


@pytest.mark.parametrize(
    ("flatten", "channels_last"),
    [(lambda x: x.flatten(1), True), (lambda x: x.view(-1, 48), False)],
    ids=["flatten", "view"],
)
def test_a_network_keeps_the_layout_that_it_works_with(
    flatten: Callable[[Tensor], Tensor], channels_last: bool
) -> None:
    net = Flattening(flatten).train()
    images = torch.randn(5, 1, 4, 6, generator=torch.Generator().manual_seed(0))
    expected = net(images)
    suited = suited_layout(net, SPEC.shape)
    assert suited.training
    torch.testing.assert_close(suited(images), expected)
    assert suited.conv(images).is_contiguous(memory_format=torch.channels_last) == channels_last
    for many in (images, images.expand(-1, 3, -1, -1)):  # views are made channels-last
        seen = many.contiguous(memory_format=torch.channels_last)[:, :1]
        torch.testing.assert_close(suited(seen), expected)


class Queries(nn.Module):
    """A recurrent layer whose first axis is time, and a linear one that no sample reaches."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.rows = nn.Linear(6, 6)
        self.key = nn.Linear(6, 3)
        self.learned = nn.Parameter(torch.ones(steps, 6))

    def forward(self, x: Tensor) -> Tensor:
        rows = self.rows(x[:, 0].movedim(1, 0))  # t n f
        return rows.mean(0) @ self.key(self.learned).mean(0).expand(6, 3)


@pytest.mark.parametrize("steps", [3, 4, 5, 6, 7, 12])
def test_an_axis_that_is_as_long_as_the_samples_are_many_is_not_theirs(steps: int) -> None:
    spec = image_spec([1, steps, 6], [0.5], [0.5])
    teacher = Teacher(freeze(Queries(steps)), "local", "test", {}, spec, OutputSpec(num_classes=3))
    taps = default_taps(teacher)
    assert [tap.id for tap in taps] == ["input", "output"]
    with ActivationTap(teacher.module, taps) as tap:
        teacher(torch.zeros(9, *spec.shape))
    assert all(len(value) == 9 for value in tap.activations.values())


class Rounding(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.table(x.flatten(1).long().clamp(0, 15)).mean(1)


class Answering(nn.Module):
    """A head behind a function of the inputs `n 24`."""

    def __init__(self, before: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.head, self.before = nn.Linear(24, 3), before

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.before(x).flatten(1))


@pytest.mark.parametrize(
    ("module", "said"),
    [
        (lambda: Answering(nn.Identity()), None),
        (Rounding, "no gradient flows"),
        (lambda: Answering(lambda x: nn.functional.dropout(x, 0.5)), "differently each time"),
        (lambda: Answering(lambda x: x.mul_(2)), "gradients to its inputs"),
    ],
    ids=["usual", "rounding", "dropout", "in place"],
)
def test_what_is_odd_is_said(module: Callable[[], nn.Module], said: str | None) -> None:
    teacher = teacher_of(module())
    before = torch.random.get_rng_state()
    found = oddities(teacher)
    assert len(found) == (said is not None)
    assert said is None or said in found[0]
    assert torch.equal(before, torch.random.get_rng_state())


def test_an_input_overwritten_in_place_is_refused_with_the_way_out() -> None:
    teacher = teacher_of(Answering(lambda x: x.mul_(2)))
    taps = default_taps(teacher)
    with ActivationTap(teacher.module, taps), pytest.raises(TeacherError) as caught:
        teacher(torch.zeros(2, *SPEC.shape))
    assert "x.clone()" in str(caught.value.hint)


def test_coarse_weights_are_refused_with_the_way_out() -> None:
    with pytest.raises(TeacherError) as caught:
        probe(Answering(nn.Identity()).bfloat16(), SPEC, where="here")
    assert "module.float()" in str(caught.value.hint)


class Squeezing(nn.Module):
    """Loses the axis of samples where there is one sample."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 3, (4, 6)), nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)).squeeze()


def test_a_model_that_fails_on_a_last_batch_of_one_is_refused_at_once() -> None:
    with pytest.raises(TeacherError, match=r"got \[3\] for n = 1") as caught:
        probe(Squeezing().eval(), SPEC, where="here")
    assert "flatten(1)" in str(caught.value.hint)
    assert probe(Squeezing().train(), SPEC, where="here") == 3  # BatchNorm then needs two samples
