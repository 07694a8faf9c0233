"""A generator that is born and forgotten with each batch (CMI)."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from dfkd_meta.synthesis.sources.base import Source
from dfkd_meta.synthesis.sources.networks import reinitialize
from dfkd_meta.synthesis.targets import Targets
from dfkd_meta.waiting import sent

BETAS = (0.5, 0.999)  # of Adam, as in DCGAN


class InvertedSource(Source):
    """A batch is one generator with fresh weights and a learnable latent per input.

    The generator is no model of the data here but a way to write images down, as in CMI (Fang et
    al. 2021): both its weights and the latents `n z` ~ N(0, I) are optimized for one
    batch, by one Adam, and drawn anew for the next, so nothing lives longer than a batch.
    """

    kind: ClassVar[str] = "re-initialized"

    def __init__(
        self,
        module: nn.Module,
        latent: int,
        *,
        learning_rate: float = 1e-3,
    ) -> None:
        self.module = module
        self.latent = latent
        self.learning_rate = learning_rate
        self._z: Tensor

    def begin(self, targets: Targets, generator: torch.Generator) -> None:
        reinitialize(self.module, generator)
        z = torch.randn(len(targets.labels), self.latent, generator=generator)
        self._z = sent(z, targets.labels.device).requires_grad_()
        self.optimizer = torch.optim.Adam(
            [*self.module.parameters(), self._z], lr=self.learning_rate, betas=BETAS
        )

    def images(self) -> Tensor:
        images: Tensor = self.module(self._z)
        return images
