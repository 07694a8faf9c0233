"""The power spectrum of images against numpy, and what noise and waves must give."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from dfkd_meta.sidecar.manifest import Tap
from dfkd_meta.statistics import Accumulator, Context, RecordRequest, make_accumulator


def accumulator(axes: list[str], shape: list[int], groups: int = 1) -> Accumulator:
    tap = Tap(id="input", module="", side="input", axes=axes, shape=shape, linear_in_input=True)
    scope = "global" if groups == 1 else "per_class"
    request = RecordRequest("power_spectrum", ("input",), "channel", scope)  # type: ignore[arg-type]
    channels = shape[axes.index("c")]
    return make_accumulator(request, Context(nn.Identity(), (tap,), channels, groups))


@pytest.mark.parametrize(
    ("axes", "shape"),
    [(["c", "h", "w"], [3, 4, 6]), (["c", "h", "w"], [2, 5, 5]), (["t", "c"], [7, 2])],
)
def test_images_give_what_numpy_gives(axes: list[str], shape: list[int]) -> None:
    part = accumulator(axes, shape, groups=2)
    channels = shape[axes.index("c")]
    positions = math.prod(shape) // channels
    x = torch.randn(30, positions, channels, dtype=torch.float64).cumsum(1) + 5
    groups = torch.arange(30) % 2
    for start in range(0, 30, 7):
        part.update(x[start : start + 7], groups[start : start + 7])
    expected = part.reference(x.numpy(), groups.numpy(), part.request, part.context)
    for role, array in part.result().arrays.items():
        np.testing.assert_allclose(array, expected[role], rtol=1e-9, atol=1e-9)


def test_white_noise_has_its_variance_everywhere() -> None:
    part = accumulator(["c", "h", "w"], [1, 8, 8])
    generator = torch.Generator().manual_seed(0)
    x = 3 + 2 * torch.randn(4_000, 64, 1, generator=generator, dtype=torch.float64)
    part.update(x, torch.zeros(4_000, dtype=torch.int64))
    result = part.result()
    assert result.arrays["power"].shape == (1, 64, 1, 1)
    np.testing.assert_allclose(result.arrays["power"], 4, rtol=0.15)
    np.testing.assert_allclose(result.arrays["mean"], 3, atol=0.02)


def test_a_wave_shows_at_its_frequency_alone() -> None:
    part = accumulator(["c", "h", "w"], [1, 6, 8])
    column = torch.arange(8, dtype=torch.float64)
    strength = torch.randn(50, 1, 1, dtype=torch.float64)
    waves = strength * torch.cos(math.pi * 3 * (column + 0.5) / 8).expand(50, 6, 8)
    part.update(waves.reshape(50, 48, 1), torch.zeros(50, dtype=torch.int64))
    power = part.result().arrays["power"].reshape(6, 8)
    assert power[0, 3] == pytest.approx(float(strength.square().mean()) * 48 / 2)
    power[0, 3] = 0
    np.testing.assert_allclose(power, 0, atol=1e-12)
