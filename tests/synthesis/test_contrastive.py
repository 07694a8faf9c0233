"""CMI's contrastive term against plain numpy, its memory, and the local views."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dfkd_meta.sidecar import InputSpec, OutputSpec, Tap
from dfkd_meta.synthesis.targets import Targets
from dfkd_meta.synthesis.terms import contrastive
from dfkd_meta.synthesis.terms.base import StepState
from dfkd_meta.synthesis.terms.contrastive import (
    FeatureBank,
    InstanceContrast,
    info_nce,
    local_view,
)
from dfkd_meta.teachers import ActivationTap, Teacher, freeze

CONV = Tap(
    id="conv:output", module="conv", side="output", axes=["c", "h", "w"], shape=[3, 4, 4],
    linear_in_input=True,
)  # fmt: skip
FLAT = Tap(id="fc:input", module="fc", side="input", axes=["f"], shape=[48], linear_in_input=True)


def seeded(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Toy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3, padding=1)
        self.fc = nn.Linear(48, 3)
        for seed, parameter in enumerate(self.parameters()):
            parameter.data = seeded(*parameter.shape, seed=seed)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.conv(x).flatten(1))
        return logits


def toy_teacher() -> Teacher:
    inputs = InputSpec(
        shape=[1, 4, 4], axes=["c", "h", "w"], value_range=[0, 1], mean=[0.0], std=[1.0]
    )
    return Teacher(freeze(Toy()), "own", "toy", {}, inputs, OutputSpec(num_classes=3))


def term(**options: Any) -> InstanceContrast:
    return InstanceContrast(
        toy_teacher(), (CONV, FLAT), torch.Generator().manual_seed(7), **options
    )


def step(made: InstanceContrast, images: Tensor, seed: int = 3) -> tuple[Tensor, StepState]:
    """The term's value, called as the engine calls it."""
    with ActivationTap(made.teacher.module, made.taps) as tap:
        logits = made.teacher(images)
        generator = torch.Generator().manual_seed(seed)
        labels = torch.zeros(len(images), dtype=torch.int64)
        state = StepState(images, images, logits, tap.activations, Targets(labels), generator)
        return made(state), state


def numpy_features(made: InstanceContrast, images: Tensor) -> np.ndarray:
    with ActivationTap(made.teacher.module, made.taps) as tap:
        made.teacher(images)
    conv, flat = (tap.activations[t.id].double().numpy() for t in (CONV, FLAT))
    return np.concatenate([conv.mean((2, 3)), flat], 1)


def numpy_loss(made: InstanceContrast, local: np.ndarray, whole: np.ndarray, count: int) -> float:
    """Row by row, as the formula reads."""
    w1, b1, w2, b2 = (p.detach().double().numpy() for p in made.head.parameters())

    def project(x: np.ndarray) -> np.ndarray:
        y = np.maximum(x @ w1.T + b1, 0) @ w2.T + b2
        return y / np.sqrt((y**2).sum(1, keepdims=True))

    a, b = project(local), project(whole)
    losses = []
    for i in range(len(a)):
        scores = [np.exp(a[i] @ b[j] / made.temperature) for j in range(len(b))]
        losses.append(-np.log(scores[i] / sum(scores)))
    return float(np.mean(losses[:count]) + (np.mean(losses[count:]) if len(losses) > count else 0))


@pytest.mark.parametrize("remembered", [0, 5])
def test_the_term_equals_plain_numpy(remembered: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contrastive, "local_view", lambda x, generator, flip: x.flip(3) + 1)
    made = term(temperature=0.3, negatives=100)
    images = seeded(4, 1, 4, 4)
    local, whole = numpy_features(made, images.flip(3) + 1), numpy_features(made, images)
    if remembered:
        rows = seeded(remembered, 2 * 51, seed=1)
        made.bank.add(rows)
        local = np.concatenate([local, rows[:, :51].double().numpy()])
        whole = np.concatenate([whole, rows[:, 51:].double().numpy()])
    value, _ = step(made, images)
    assert float(value.detach()) == pytest.approx(numpy_loss(made, local, whole, 4), rel=1e-4)


def test_only_the_local_view_takes_a_gradient() -> None:
    local, whole = seeded(5, 8).requires_grad_(), seeded(5, 8, seed=1).requires_grad_()
    info_nce(local, whole, 3, 0.5).backward()
    assert local.grad is not None
    assert local.grad.any(1).all()
    assert whole.grad is None


def test_the_gradient_reaches_images_and_head() -> None:
    made = term()
    images = seeded(4, 1, 4, 4).requires_grad_()
    value, _ = step(made, images)
    gradients = torch.autograd.grad(value, [images, *made.parameters()])
    assert all(bool(g.any()) for g in gradients)


def test_training_the_head_tells_instances_apart() -> None:
    made = term()
    images = seeded(20, 1, 4, 4)
    adam = torch.optim.Adam(made.parameters(), lr=made.learning_rate)
    before, _ = step(made, images, seed=1000)
    for seed in range(60):
        value, _ = step(made, images, seed)
        adam.zero_grad()
        value.backward()
        adam.step()
    after, _ = step(made, images, seed=1000)
    assert float(after.detach()) < 0.7 * float(before.detach())


def test_the_bank_is_first_in_first_out_whatever_divides_it() -> None:
    bank = FeatureBank(5)
    generator = torch.Generator().manual_seed(0)
    assert bank.draw(3, generator) is None
    rows = torch.arange(9.0)[:, None]
    seen = []
    for start in (0, 3, 6):
        bank.add(rows[start : start + 3])
        assert bank.rows is not None
        seen.append(bank.rows[:, 0].tolist())
    assert seen == [[0, 1, 2], [1, 2, 3, 4, 5], [4, 5, 6, 7, 8]]
    bank.add(torch.arange(20.0)[:, None])
    drawn = bank.draw(9, generator)
    assert drawn is not None
    assert sorted(drawn[:, 0].tolist()) == [15, 16, 17, 18, 19]
    assert len(bank) == 5
    fewer = bank.draw(2, generator)
    assert fewer is not None
    assert len(fewer.unique()) == 2


def test_finished_batches_are_remembered_and_saved_with_the_head() -> None:
    made = term(capacity=6)
    for seed in range(2):
        images = seeded(4, 1, 4, 4, seed=seed)
        _, state = step(made, images)
        made.end_batch(state)
        assert made.bank.rows is not None
        whole = made.bank.rows[-4:, 51:].double().numpy()
        assert whole == pytest.approx(numpy_features(made, images), rel=1e-4, abs=1e-4)
    assert len(made.bank) == 6
    assert not made.bank.rows.requires_grad
    other = InstanceContrast(made.teacher, (CONV, FLAT), torch.Generator().manual_seed(8))
    before, _ = step(other, images)
    other.load_state(made.state())
    assert torch.equal(step(other, images)[0], step(made, images)[0])
    assert not torch.equal(before, step(made, images)[0])


def test_a_local_view_is_an_enlarged_part() -> None:
    """On a picture of its own coordinates the view is a ramp: its slope is the part's side."""
    size, count = 32, 400
    across = (torch.arange(size) * 2 + 1) / size - 1
    picture = torch.stack([across.expand(size, size), across[:, None].expand(size, size)])
    images = picture.expand(count, -1, -1, -1)
    view = local_view(images, torch.Generator().manual_seed(0), least=0.25)
    inner = view[:, :, 8:24, 8:24]
    sides = torch.stack([inner[:, 0, 0].diff(dim=1).mean(1), inner[:, 1, :, 0].diff(dim=1).mean(1)])
    sides = sides / (2 / size)
    area = sides.prod(0)
    assert area.min() > 0.24
    assert area.max() < 1.01
    assert area.mean() == pytest.approx(0.61, abs=0.04)  # large parts lose a little at the border
    assert float((sides[0] / sides[1]).max()) <= 16 / 9
    centers = inner.mean((2, 3))
    assert (centers.abs() <= 1 - sides.T + 1e-3).all()  # the part lies inside the image
    assert centers.std() > 0.1
    mirrored = local_view(images, torch.Generator().manual_seed(0), flip=True)
    turned = mirrored[:, 0, 16].diff(dim=1).mean(1) < 0
    assert 0.4 < float(turned.float().mean()) < 0.6


def test_the_local_view_of_other_inputs_swaps_elements_between_rows() -> None:
    rows = seeded(50, 40)
    view = local_view(rows, torch.Generator().manual_seed(0))
    kept = view == rows
    assert 0.6 < float(kept.float().mean()) < 0.8
    for column in range(3):
        assert set(view[:, column].tolist()) <= set(rows[:, column].tolist())
