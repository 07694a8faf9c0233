"""Images with a recorded power spectrum, and the coordinates in which they are white noise."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dfkd_meta.sidecar import Sidecar
from dfkd_meta.synthesis.gaussians import read_tensor
from dfkd_meta.teachers import cosine_transform

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
        down, right = self._transforms()
        mixed = torch.einsum("hwab,nbhw->nahw", self.root, white)
        return self.mean[:, None, None] + down.T @ mixed @ right

    def coordinates(self, images: Tensor) -> Tensor:
        """The inverse of ``images``."""
        down, right = self._transforms()
        moved = down @ (images - self.mean[:, None, None]) @ right.T
        return torch.einsum("hwab,nbhw->nahw", torch.linalg.inv(self.root), moved)

    def _transforms(self) -> tuple[Tensor, Tensor]:
        height, width = self.root.shape[:2]
        device = self.root.device
        return cosine_transform(height, device).float(), cosine_transform(width, device).float()


def read_spectrum(sidecar: Sidecar, device: torch.device) -> Spectrum | None:
    """The spectrum of the model's input over all classes; None when it is no image or not there."""
    shape = sidecar.manifest.inputs.shape
    for record in sidecar.find("power_spectrum", scope="global"):
        tap = sidecar.tap(record.taps[0])
        if tap.module or tap.side != "input" or tap.axes != ["c", "h", "w"]:
            continue
        mean, power = (read_tensor(sidecar, record, role, device)[0] for role in ("mean", "power"))
        channels, height, width = shape
        power = power.double().view(height, width, channels, channels)
        floor = FLOOR * power.diagonal(dim1=2, dim2=3).mean().clamp_min(1e-12)
        root = torch.linalg.cholesky(power + floor * torch.eye(channels, device=device))
        return Spectrum(mean, root.float())
    return None
