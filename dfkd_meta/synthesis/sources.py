"""Where inputs come from: free pixels that an optimizer moves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from dfkd_meta.synthesis.targets import Targets

Start = Callable[[Targets, torch.Generator], Tensor]
"""Makes the first inputs of a batch: float32 `n ...`, model-normalized."""


@dataclass(frozen=True)
class PixelSource:
    """Every input element is a parameter.

    ``bounds`` (low, high; each broadcasts over one input) keeps the inputs inside the values that
    real inputs can take; None leaves them free.
    """

    start: Start
    bounds: tuple[Tensor, Tensor] | None = None

    def begin(self, targets: Targets, generator: torch.Generator) -> Tensor:
        """The leaf tensor to optimize: float32 `n ...`, model-normalized, requires grad."""
        pixels = self.start(targets, generator).detach().clone()
        self.project(pixels)
        return pixels.requires_grad_()

    @torch.no_grad()
    def project(self, pixels: Tensor) -> None:
        """Clip in place to the bounds."""
        if self.bounds is not None:
            pixels.clamp_(*self.bounds)


def gaussian_start(
    shape: tuple[int, ...],
    device: torch.device,
    *,
    mean: float = 0.0,
    std: float = 1.0,
    vary: bool = False,
) -> Start:
    """White noise N(mean, std^2) in model-normalized space; ``shape`` is that of one input.

    With ``vary`` each input has a contrast of its own: its std is uniform in [0, ``std``].
    """

    def start(targets: Targets, generator: torch.Generator) -> Tensor:
        count = len(targets.labels)
        noise = torch.randn(count, *shape, generator=generator) * std
        if vary:
            noise *= torch.rand(count, *(1,) * len(shape), generator=generator)
        return (noise + mean).to(device)

    return start
