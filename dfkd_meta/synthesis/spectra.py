"""Images as white noise in coordinates of their own: the recorded power spectrum as a prior."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from dfkd_meta.sidecar import Sidecar
from dfkd_meta.synthesis.gaussians import of_input, read_tensor
from dfkd_meta.synthesis.marginals import Marginals, read_marginals
from dfkd_meta.teachers import cosine_transform
from dfkd_meta.teachers.axes import is_image

SAMPLE = 2_000  # images that tell which values noise of a spectrum has
FLOOR = 1e-4  # of the mean power: what a frequency without any is taken to have


@dataclass(frozen=True)
class Spectrum:
    """The Gaussian with a recorded spectrum, as a linear map from white noise.

    mean: float32 `c`. root: float32 `h w c c`, lower triangular, root root^T = the power at each
    frequency of the cosine transform.
    """

    mean: Tensor
    root: Tensor

    def images(self, white: Tensor) -> Tensor:
        """Coordinates `n c h w` to images `n c h w`; white noise becomes images of this spectrum.

        Decorrelated coordinates, in which a step changes an image the way images differ from one
        another: the parameterization of Olah et al. 2017 (Feature Visualization), recorded instead
        of assumed.
        """
        down, right = self._transforms
        mixed = torch.einsum("hwab,nbhw->nahw", self.root, white)
        return self.mean[:, None, None] + down.T @ mixed @ right

    @cached_property
    def _transforms(self) -> tuple[Tensor, Tensor]:
        height, width = self.root.shape[:2]
        device = self.root.device
        return cosine_transform(height, device).float(), cosine_transform(width, device).float()


@dataclass(frozen=True)
class NaturalImages:
    """Renders coordinates as images with a recorded spectrum and, if known, recorded values.

    White noise becomes noise with the spectrum of the data; then each channel gets the values that
    the data have (``wanted``, for ``own``: those of such noise), and what is outside of the bounds
    (low, high) is cut. Gradients pass through both as if they were not there: values that do not
    occur (gray in a drawing) are no wall between those that do.
    """

    spectrum: Spectrum
    bounds: tuple[Tensor, Tensor]
    own: Marginals | None = None
    wanted: Marginals | None = None

    def __call__(self, white: Tensor) -> Tensor:
        """Coordinates `n c h w` to images `n c h w`."""
        plain = self.spectrum.images(white)
        turned = plain.detach()
        if self.own is not None and self.wanted is not None:
            turned = self.own.turn_into(self.wanted, turned)
        return turned.clamp(*self.bounds) + (plain - plain.detach())


def natural_images(
    sidecar: Sidecar, bounds: tuple[Tensor, Tensor], start: Callable[[int], Tensor]
) -> NaturalImages | None:
    """The renderer that a sidecar allows; None without a power spectrum of the input.

    ``start`` makes that many coordinates as synthesis starts from, to see what values they have.
    """
    device = bounds[0].device
    spectrum, wanted = read_spectrum(sidecar, device), read_marginals(sidecar, device)
    if spectrum is None or wanted is None:
        return None if spectrum is None else NaturalImages(spectrum, bounds)
    own = Marginals.of(spectrum.images(start(SAMPLE)), wanted.probability)
    return NaturalImages(spectrum, bounds, own, wanted)


def read_spectrum(sidecar: Sidecar, device: torch.device) -> Spectrum | None:
    """The spectrum of the model's input over all classes; None when it is no image or not there."""
    inputs = sidecar.manifest.inputs
    if not is_image(inputs):
        return None
    for record in of_input(sidecar, "power_spectrum", scope="global"):
        mean, power = (read_tensor(sidecar, record, role, device)[0] for role in ("mean", "power"))
        channels, height, width = inputs.shape
        power = power.double().view(height, width, channels, channels)
        floor = FLOOR * power.diagonal(dim1=2, dim2=3).mean().clamp_min(1e-12)
        root = torch.linalg.cholesky(power + floor * torch.eye(channels, device=device))
        return Spectrum(mean, root.float())
    return None
