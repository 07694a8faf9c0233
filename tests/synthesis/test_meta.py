"""The meta-generator of FastDFKD against updates written out by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dfkd_meta.checkpoint import load_state, save_state
from dfkd_meta.synthesis.sources.meta import REPTILE_SCALE, MetaSource, Update, first_layers
from dfkd_meta.synthesis.targets import Targets

COUNT, LATENT, INNER = 4, 3, 3
RATES = {"learning_rate": 0.01, "latent_rate": 0.03, "meta_rate": 0.05}
AIM = torch.linspace(-1, 1, COUNT * 2).view(COUNT, 2)
TARGETS = Targets(torch.zeros(COUNT, dtype=torch.int64))


def source(update: Update = "fomaml", reset_at: int | None = None) -> MetaSource:
    module = nn.Linear(LATENT, 2)
    module.weight.data = torch.linspace(-0.5, 0.7, 6).view(2, 3)
    module.bias.data = torch.tensor([0.1, -0.2])
    return MetaSource(module, LATENT, update=update, reset_at=reset_at, **RATES)


def run_batch(made: MetaSource, generator: torch.Generator) -> Tensor:
    """One batch as the engine runs it, on the loss sum (x - aim)^2; the last images."""
    made.begin(TARGETS, generator)
    parameters = [p for group in made.optimizer.param_groups for p in group["params"]]
    for _ in range(INNER):
        loss = (made.images() - AIM).square().sum()
        for parameter, gradient in zip(
            parameters, torch.autograd.grad(loss, parameters), strict=True
        ):
            parameter.grad = gradient
        made.optimizer.step()
        made.after_step()
    made.end()
    return made.images().detach()


class HandAdam:
    """Kingma & Ba 2015, algorithm 1, betas (0.5, 0.999), on a list of arrays."""

    def __init__(self, rates: list[float]) -> None:
        self.rates, self.steps = rates, 0
        self.first = [0.0] * len(rates)
        self.second = [0.0] * len(rates)

    def step(self, arrays: list[np.ndarray], gradients: list[np.ndarray]) -> list[np.ndarray]:
        self.steps += 1
        moved = []
        for i, (x, g) in enumerate(zip(arrays, gradients, strict=True)):
            self.first[i] = 0.5 * self.first[i] + 0.5 * g
            self.second[i] = 0.999 * self.second[i] + 0.001 * g**2
            mean = self.first[i] / (1 - 0.5**self.steps)
            square = self.second[i] / (1 - 0.999**self.steps)
            moved.append(x - self.rates[i] * mean / (np.sqrt(square) + 1e-8))
        return moved


def gradients(w: np.ndarray, b: np.ndarray, z: np.ndarray) -> list[np.ndarray]:
    """Of sum (z w^T + b - aim)^2 with respect to w, b and z."""
    error = 2 * (z @ w.T + b - AIM.double().numpy())
    return [error.T @ z, error.sum(0), error @ w]


@pytest.mark.parametrize("update", ["fomaml", "reptile"])
def test_the_meta_update_equals_one_written_by_hand(update: Update) -> None:
    made = source(update)
    theta = [p.detach().double().numpy().copy() for p in made.module.parameters()]
    meta = HandAdam([RATES["meta_rate"]] * 2)
    generator, same = (torch.Generator().manual_seed(5) for _ in range(2))
    for _ in range(3):
        images = run_batch(made, generator)
        z = torch.randn(COUNT, LATENT, generator=same).double().numpy()
        inner = HandAdam([RATES["learning_rate"]] * 2 + [RATES["latent_rate"]])
        fast, total = [*theta, z], [np.zeros_like(t) for t in theta]
        for _ in range(INNER):
            found = gradients(*fast)
            total = [t + g for t, g in zip(total, found, strict=False)]
            fast = inner.step(fast, found)
        if update == "reptile":
            total = [REPTILE_SCALE * (t - f) for t, f in zip(theta, fast, strict=False)]
        theta = meta.step(theta, total)
        expected = fast[2] @ fast[0].T + fast[1]
        assert images.numpy() == pytest.approx(expected, rel=1e-4, abs=1e-5)
        for parameter, by_hand in zip(made.module.parameters(), theta, strict=True):
            assert parameter.detach().numpy() == pytest.approx(by_hand, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("update", ["fomaml", "reptile"])
def test_meta_learning_makes_the_first_step_better(update: Update) -> None:
    made = source(update)
    first = []
    for seed in range(60):
        run_batch(made, torch.Generator().manual_seed(seed))
        with torch.no_grad():
            z = torch.randn(500, LATENT, generator=torch.Generator().manual_seed(0))
            first.append(float((made.module(z).mean(0) - AIM.mean(0)).square().sum()))
    assert first[-1] < 0.3 * first[0]


@pytest.mark.parametrize("cut", [1, 2])
def test_it_continues_bit_for_bit(cut: int, tmp_path: Path) -> None:
    """Also over the reset of its first layer, in batch 2."""
    whole, generator = source(reset_at=2), torch.Generator().manual_seed(0)
    expected = [run_batch(whole, generator) for _ in range(4)]
    begun, generator = source(reset_at=2), torch.Generator().manual_seed(0)
    for _ in range(cut):
        run_batch(begun, generator)
    save_state(tmp_path / "state", begun.state())
    again = source(reset_at=2)
    again.load_state(load_state(tmp_path / "state"))
    found = [run_batch(again, generator) for _ in range(4 - cut)]
    assert all(torch.equal(a, b) for a, b in zip(found, expected[cut:], strict=True))


def test_first_layers_start_afresh_once() -> None:
    made, never = source(reset_at=1), source()
    changed = []
    for seed in range(3):
        for one in (made, never):
            run_batch(one, torch.Generator().manual_seed(seed))
        gap = made.module.weight - never.module.weight  # type: ignore[operator]
        changed.append(bool(gap.detach().abs().max() > 0.05))  # type: ignore[union-attr]
    assert changed[:2] == [False, True]


def test_which_layers_are_first() -> None:
    module = nn.Sequential(
        nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Linear(8, 2)
    )
    assert first_layers(module) == [module[0], module[1]]
    assert first_layers(nn.ReLU()) == []


def test_a_restart_forgets_everything() -> None:
    made = source()
    run_batch(made, torch.Generator())
    before = made.module.weight.clone()  # type: ignore[operator]
    made.restart(torch.Generator().manual_seed(1))
    assert not torch.equal(before, made.module.weight)  # type: ignore[arg-type]
    assert made.state()["optimizer"]["state"] == {}
