"""Moments of activations equal the plain formulas, in blocks or whole, and their gradients do."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from dfkd_meta.synthesis import moments
from dfkd_meta.synthesis.grouping import Grouping
from dfkd_meta.synthesis.moments import group_moments, position_moments

ROWS = torch.tensor([3, 0, 0, 3, 1, 3, 0])  # of seven samples; not in order, group 2 is absent
GROUPS = (0, 1, 3)
SHAPE = (len(ROWS), 6, 4)  # n p c
Moments = Callable[[Tensor], tuple[Tensor, ...]]


def drawn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def plain_positions(maps: Tensor) -> tuple[Tensor, Tensor]:
    return maps.mean(1), maps.square().mean(1)


def plain_groups(maps: Tensor) -> tuple[Tensor, Tensor]:
    members = [maps[group == ROWS] for group in GROUPS]
    first, second = zip(*((m.mean(0), m.square().mean(0)) for m in members), strict=True)
    return torch.stack(first), torch.stack(second)


def by_group(maps: Tensor) -> tuple[Tensor, Tensor]:
    return group_moments(maps, Grouping.of(ROWS))


def channels_last(maps: Tensor) -> Tensor:
    """As positions of a map `n c h w` are seen that is not channels-last: `n p c`."""
    return maps.transpose(1, 2).contiguous().transpose(1, 2)


PAIRS = pytest.mark.parametrize(
    ("found", "plain"),
    [(position_moments, plain_positions), (by_group, plain_groups)],
    ids=["positions", "groups"],
)


@PAIRS
@pytest.mark.parametrize("layout", [Tensor.contiguous, channels_last])
@pytest.mark.parametrize("block", [1, 2 * 24, 3 * 24, 10_000])
def test_values_and_gradients_are_those_of_the_formulas(
    found: Moments,
    plain: Moments,
    layout: Callable[[Tensor], Tensor],
    block: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(moments, "BLOCK", block)
    maps = layout(drawn(*SHAPE) + 1)
    results = []
    for function in (found, plain):
        x = maps.clone().requires_grad_()
        first, second = function(x)
        value = (first * drawn(*first.shape, seed=1)).sum() + (second.sqrt()).sum()
        results.append((first, second, *torch.autograd.grad(value, x)))
    torch.testing.assert_close(*results)


@PAIRS
def test_gradients_in_double_precision(found: Moments, plain: Moments) -> None:
    maps = drawn(*SHAPE, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(found, (maps,))
    torch.testing.assert_close(found(maps), plain(maps))


@PAIRS
def test_coarse_maps_are_summed_in_float32_and_their_gradients_are_coarse(
    found: Moments, plain: Moments
) -> None:
    coarse = drawn(*SHAPE).bfloat16()
    x, exact = coarse.clone().requires_grad_(), coarse.float().requires_grad_()
    results = found(x)
    assert all(one.dtype == torch.float32 for one in results)
    torch.testing.assert_close(results, plain(exact))
    (gradient,) = torch.autograd.grad(sum(one.sum() for one in results), x)
    (expected,) = torch.autograd.grad(sum(one.sum() for one in plain(exact)), exact)
    assert gradient.dtype == torch.bfloat16
    torch.testing.assert_close(gradient, expected.bfloat16())
