"""Images with a recorded spectrum: what is drawn has it, and coordinates lead back."""

from __future__ import annotations

import pytest
import torch

from dfkd_meta.synthesis.sources.pixels import PixelSource, spectrum_start
from dfkd_meta.synthesis.spectra import Spectrum
from dfkd_meta.synthesis.targets import Targets
from dfkd_meta.teachers import cosine_transform

HEIGHT, WIDTH = 6, 8
TARGETS = Targets(torch.zeros(5, dtype=torch.int64))


def spectrum() -> Spectrum:
    """Falling with the frequency, the two channels alike."""
    strength = 1 / (1 + torch.arange(HEIGHT)[:, None] + torch.arange(WIDTH))
    root = strength[:, :, None, None] * torch.tensor([[1.0, 0.0], [0.8, 0.3]])
    return Spectrum(torch.tensor([1.0, -2.0]), root)


def test_draws_have_the_mean_and_power_of_the_spectrum() -> None:
    made = spectrum()
    white = torch.randn(20_000, 2, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0))
    images = made.images(white)
    torch.testing.assert_close(images.mean((0, 2, 3)), made.mean, atol=0.05, rtol=0)
    down, right = (cosine_transform(size, torch.device("cpu")).float() for size in (HEIGHT, WIDTH))
    waves = down @ (images - made.mean[:, None, None]) @ right.T
    power = torch.einsum("nahw,nbhw->hwab", waves, waves) / len(images)
    torch.testing.assert_close(power, made.root @ made.root.mT, rtol=0.06, atol=0.06)


def test_coordinates_are_the_inverse() -> None:
    made, images = spectrum(), torch.randn(3, 2, HEIGHT, WIDTH)
    torch.testing.assert_close(made.images(made.coordinates(images)), images, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("bounded", [True, False])
def test_pixels_move_in_its_coordinates_within_the_bounds(bounded: bool) -> None:
    made = spectrum()
    bounds = (torch.tensor(-1.5), torch.tensor(1.5)) if bounded else None
    source = PixelSource(spectrum_start((2, HEIGHT, WIDTH), made), bounds, 0.1, spectrum=made)
    source.begin(TARGETS, torch.Generator().manual_seed(0))
    before = source.images()
    before.square().sum().backward()
    source.optimizer.step()
    source.after_step()
    after = source.images().detach()
    assert after.square().sum() < before.square().sum()
    if bounded:
        assert after.abs().max() <= 1.5
        outside = made.images(source._pixels).abs() > 1.5
        assert outside.any(), "the bounds cut nothing, so this proves nothing"
