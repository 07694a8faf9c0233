"""Histogram matching: every channel gets the values it should have, in the order it had them."""

from __future__ import annotations

import torch

from dfkd_meta.synthesis.marginals import Marginals, ValueMap

LEVELS = torch.arange(1, 100) / 100


def test_images_get_the_marginals_of_others() -> None:
    generator = torch.Generator().manual_seed(0)
    blurred = torch.randn(200, 2, 8, 8, generator=generator)
    wanted = torch.stack([torch.rand(200, 8, 8), torch.randn(200, 8, 8).exp()], 1)
    own, aim = Marginals.of(blurred, LEVELS), Marginals.of(wanted, LEVELS)
    turned = ValueMap.between(own, aim)(blurred)
    assert turned.shape == blurred.shape
    torch.testing.assert_close(Marginals.of(turned, LEVELS).value, aim.value, rtol=0.02, atol=0.01)
    for channel in range(2):
        order = blurred[:, channel].flatten().argsort()
        assert (turned[:, channel].flatten()[order].diff() >= 0).all()


def test_values_that_occur_often_stay_together() -> None:
    """Digits are mostly background: a flat stretch of quantiles has no width to divide by."""
    ink = torch.zeros(50, 1, 4, 4)
    ink[:, :, :2] = torch.rand(50, 1, 2, 4)
    aim = Marginals(LEVELS, (LEVELS > 0.8).float()[None])
    turned = ValueMap.between(Marginals.of(ink, LEVELS), aim)(ink)
    assert torch.isfinite(turned).all()
    assert (turned[ink == 0] == 0).all()
    assert abs(float((turned == 1).float().mean()) - 0.2) < 0.03


def test_one_value_everywhere_has_no_range_to_divide_by() -> None:
    flat = torch.full((4, 1, 2, 2), 3.0)
    aim = Marginals(LEVELS, LEVELS[None])
    turned = ValueMap.between(Marginals.of(flat, LEVELS), aim)(flat)
    assert (turned == LEVELS[0]).all()
