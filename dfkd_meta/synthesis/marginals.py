"""How often each value occurs in a channel, and inputs changed so that it does."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dfkd_meta.sidecar import Sidecar
from dfkd_meta.synthesis.gaussians import of_input, read_tensor
from dfkd_meta.teachers.axes import is_image


@dataclass(frozen=True)
class Marginals:
    """Quantiles of the values of each channel, over samples and positions.

    probability: float32 `q`, ascending within (0, 1). value: float32 `c q`, not descending.
    """

    probability: Tensor
    value: Tensor

    @classmethod
    def of(cls, images: Tensor, probability: Tensor) -> Marginals:
        """Those of images `n c ...` at some probabilities `q`."""
        rows = images.transpose(0, 1).flatten(1).sort(1).values
        place = (probability * (rows.shape[1] - 1)).round().long()
        return cls(probability, rows[:, place])

    def turn_into(self, wanted: Marginals, images: Tensor) -> Tensor:
        """Images `n c ...` that have these marginals, with the wanted ones at the same levels.

        Each value goes where its quantile is (histogram matching), linearly in between; beyond the
        outermost levels it stays at them.
        """
        rows = images.transpose(0, 1).flatten(1).contiguous()
        upper = torch.searchsorted(self.value, rows).clamp(1, len(self.probability) - 1)
        low, high = (self.value.gather(1, at) for at in (upper - 1, upper))
        share = ((rows - low) / (high - low).clamp_min(1e-12)).clamp(0, 1)
        turned = torch.lerp(wanted.value.gather(1, upper - 1), wanted.value.gather(1, upper), share)
        return turned.view(images.shape[1], len(images), *images.shape[2:]).transpose(0, 1)


def read_marginals(sidecar: Sidecar, device: torch.device) -> Marginals | None:
    """Those of the model's input over all classes; None when it is no image or not recorded."""
    if not is_image(sidecar.manifest.inputs):
        return None
    for record in of_input(sidecar, "quantiles", scope="global", reduction="channel"):
        probability, value = (
            read_tensor(sidecar, record, role, device) for role in ("probability", "value")
        )
        return Marginals(probability, value[0])
    return None
