"""Draws from records have the recorded moments."""

from __future__ import annotations

import pytest
import torch

from dfkd_meta.synthesis.gaussians import ClassGaussians, ClassMixtures, JointMixtures


def draws(gaussians: ClassGaussians, label: int, count: int = 40_000) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return gaussians.sample(torch.full((count,), label), generator)


def test_a_cholesky_factor_gives_its_covariance_not_its_square() -> None:
    factor = torch.tensor([[[2.0, 0.0], [1.0, 0.5]]])
    x = draws(ClassGaussians(torch.tensor([[1.0, -1.0]]), cholesky=factor), 0)
    assert torch.allclose(x.mean(0), torch.tensor([1.0, -1.0]), atol=0.05)
    assert torch.allclose(torch.cov(x.T), factor[0] @ factor[0].T, atol=0.1)


def test_a_low_rank_factor_and_its_residual_add_up() -> None:
    factor = torch.tensor([[[3.0, 0.0, 1.0]]])
    residual = torch.tensor([[0.1, 0.2, 0.3]])
    x = draws(ClassGaussians(torch.zeros(1, 3), residual, factor), 0)
    assert torch.allclose(
        torch.cov(x.T), factor[0].T @ factor[0] + residual.diag_embed()[0], atol=0.2
    )


def test_groups_follow_the_listed_classes() -> None:
    means = torch.tensor([[10.0], [20.0]])
    gaussians = ClassGaussians(means, torch.zeros(2, 1), classes=(4, 1))
    x = gaussians.sample(torch.tensor([1, 4, 1]), torch.Generator())
    assert x.flatten().tolist() == [20.0, 10.0, 20.0]


@pytest.mark.parametrize("labels", [[0, 5, 2], [0]])
def test_global_statistics_serve_every_class(labels: list[int]) -> None:
    gaussians = ClassGaussians(torch.tensor([[7.0]]), torch.zeros(1, 1))
    assert gaussians.sample(torch.tensor(labels), torch.Generator()).unique().tolist() == [7.0]


def test_a_mixture_draws_its_modes_by_weight() -> None:
    weight = torch.tensor([[0.75, 0.25], [1.0, 0.0]])
    mean = torch.tensor([[10.0, 0.0], [-10.0, 0.0], [0.0, 50.0], [9.0, 9.0]])  # `(g m) f`
    factor = torch.tensor([[[0.0, 2.0]], [[0.0, 0.5]], [[1.0, 0.0]], [[1.0, 1.0]]])
    modes = ClassGaussians(mean, factor=factor, classes=(0, 1, 2, 3))
    mixtures = ClassMixtures(weight, modes, classes=(3, 7))
    labels = torch.tensor([3, 7]).repeat(8_000)
    x = mixtures.sample(labels, torch.Generator().manual_seed(0))
    three, seven = x[labels == 3], x[labels == 7]
    first = three[:, 0] > 0
    assert float(first.float().mean()) == pytest.approx(0.75, abs=0.02)
    assert float(three[first, 1].std()) == pytest.approx(2.0, rel=0.05)
    assert float(three[~first, 1].std()) == pytest.approx(0.5, rel=0.05)
    assert (three[first, 0] == 10).all()
    assert (seven[:, 1] == 50).all()
    assert float(seven[:, 0].std()) == pytest.approx(1.0, rel=0.05)


def test_one_joint_draw_is_the_same_input_at_every_tap() -> None:
    modes = ClassGaussians(
        torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]]),
        factor=torch.tensor([[[1.0, -1.0, 4.0]], [[0.0, 0.0, 2.0]]]),
        classes=(0, 1),
    )
    joint = JointMixtures(ClassMixtures(torch.ones(2, 1), modes, (0, 1)), {"a": 2, "b": 1})
    labels = torch.zeros(500, dtype=torch.int64)
    drawn = joint.sample(labels, torch.Generator().manual_seed(0))
    assert {tap: rows.shape for tap, rows in drawn.items()} == {"a": (500, 2), "b": (500, 1)}
    torch.testing.assert_close(drawn["b"][:, 0] - 3, 4 * (drawn["a"][:, 0] - 1), atol=1e-4, rtol=0)
    assert joint.mean_variance("a") == pytest.approx(2 / 4)
    assert joint.mean_variance("b") == pytest.approx((16 + 4) / 2)
