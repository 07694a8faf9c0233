"""The cosine transform along several axes, short and long."""

from __future__ import annotations

import math

import pytest
import torch

from dfkd_meta.teachers import CosineTransform, cosines

CPU = torch.device("cpu")
GRIDS = [(7,), (6,), (3, 8), (5, 2, 4)]


@pytest.fixture(params=[0, 1_024], ids=["fast", "matrix"])
def long(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cosines, "LONG", request.param)


@pytest.mark.usefixtures("long")
@pytest.mark.parametrize("grid", GRIDS)
def test_it_is_an_isometry_with_an_inverse(grid: tuple[int, ...]) -> None:
    x = torch.randn(2, 3, *grid, dtype=torch.float64)
    transform = CosineTransform(grid, CPU, torch.float64)
    waves = transform(x, 2)
    torch.testing.assert_close(waves.flatten(1).norm(dim=1), x.flatten(1).norm(dim=1))
    torch.testing.assert_close(transform.inverse(waves, 2), x)


@pytest.mark.usefixtures("long")
@pytest.mark.parametrize("frequency", [0, 1, 4])
def test_a_wave_has_one_coefficient(frequency: int) -> None:
    wave = torch.cos(math.pi * frequency * (torch.arange(5, dtype=torch.float64) + 0.5) / 5)
    found = CosineTransform((5,), CPU, torch.float64)(wave[None], 1)[0]
    expected = torch.zeros(5, dtype=torch.float64)
    expected[frequency] = wave.norm()
    torch.testing.assert_close(found, expected)


@pytest.mark.usefixtures("long")
def test_networks_may_compute_in_less_than_float32() -> None:
    transform = CosineTransform((6,), CPU, torch.float32)
    x = torch.randn(2, 6)
    with torch.autocast("cpu", torch.bfloat16):
        narrow = (x @ torch.eye(6)).requires_grad_()
        assert narrow.dtype == torch.bfloat16
        for change in (transform, transform.inverse):
            change(narrow, 1).sum().backward()


@pytest.mark.usefixtures("long")
def test_gradients_pass() -> None:
    x = torch.randn(2, 4, 5, dtype=torch.float64, requires_grad=True)
    transform = CosineTransform((4, 5), CPU, torch.float64)
    assert torch.autograd.gradcheck(lambda x: transform(x, 1), (x,))
    assert torch.autograd.gradcheck(lambda x: transform.inverse(x, 1), (x,))
