"""Free pixels: every input element is a parameter."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from dfkd_meta.synthesis.sources.base import Source
from dfkd_meta.synthesis.targets import Targets
from dfkd_meta.waiting import sent

Start = Callable[[Targets, torch.Generator], Tensor]
"""Makes the first inputs of a batch: float32 `n ...`, model-normalized (or coordinates)."""

Render = Callable[[Tensor], Tensor]
"""Makes model-normalized inputs of coordinates, both float32 `n ...`; differentiable."""

Rendering = Callable[[Targets, torch.Generator], Render]
"""Makes what renders one batch."""


@dataclass
class PixelSource(Source):
    """A batch of pixels with an Adam of its own (Kingma & Ba 2015).

    ``bounds`` (low, high; each broadcasts over one input) keeps the inputs inside the values that
    real inputs can take; None leaves them free. With ``rendering`` the parameters are coordinates
    `n ...` that it makes inputs of, within the bounds by itself. With ``decay_over``, a number of
    steps, the rate falls to a tenth over them (half a cosine).
    """

    kind: ClassVar[str] = "pixels"
    start: Start
    bounds: tuple[Tensor, Tensor] | None = None
    learning_rate: float = 0.1
    betas: tuple[float, float] = (0.9, 0.999)
    rendering: Rendering | None = None
    decay_over: int | None = None
    _render: Render | None = field(init=False, repr=False, default=None)
    _pixels: Tensor = field(init=False, repr=False)
    _steps: int = field(init=False, repr=False, default=0)

    def begin(self, targets: Targets, generator: torch.Generator) -> None:
        self._render = self.rendering(targets, generator) if self.rendering else None
        self._pixels = self.fresh(targets, generator).requires_grad_()
        self.optimizer = torch.optim.Adam([self._pixels], lr=self.learning_rate, betas=self.betas)
        self._steps = 0

    def images(self) -> Tensor:
        return self._pixels if self._render is None else self._render(self._pixels)

    @torch.no_grad()
    def after_step(self) -> None:
        if self.bounds is not None:
            self._pixels.clamp_(*self.bounds)
        if self.decay_over is not None:
            self._steps += 1
            left = 0.5 + 0.5 * math.cos(math.pi * min(1.0, self._steps / self.decay_over))
            self.optimizer.param_groups[0]["lr"] = self.learning_rate * (0.1 + 0.9 * left)

    def fresh(self, targets: Targets, generator: torch.Generator) -> Tensor:
        """What the parameters of a batch start from, inside the bounds."""
        pixels = self.start(targets, generator).detach().clone()
        return pixels if self.bounds is None else pixels.clamp_(*self.bounds)


def white_start(shape: tuple[int, ...], device: torch.device, contrast: float) -> Start:
    """White noise whose strength differs from input to input.

    It is ``exp(contrast n - contrast^2)`` with n ~ N(0, 1), 1 in the mean of its square:
    photographs differ in contrast by far more than noise of one strength does.
    """

    def start(targets: Targets, generator: torch.Generator) -> Tensor:
        count = len(targets.labels)
        white = torch.randn(count, *shape, generator=generator)
        strength = torch.randn(count, *(1,) * len(shape), generator=generator)
        return sent(white * torch.exp(contrast * strength - contrast**2), device)

    return start


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
        return sent(noise + mean, device)

    return start
