"""A generator that learns over the whole run (DAFL, ZSKT, DFQ)."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from dfkd_meta.checkpoint import State
from dfkd_meta.synthesis.sources.base import Source
from dfkd_meta.synthesis.sources.networks import reinitialize
from dfkd_meta.synthesis.targets import Targets
from dfkd_meta.waiting import sent

BETAS = (0.5, 0.999)  # of Adam, as in DCGAN


class GeneratorSource(Source):
    """One generator and one Adam for the run; each batch is the output for a latent of its own.

    ``module`` maps latents `n z` ~ N(0, I) to inputs `n ...`. It stays in training mode, also for
    the student's inputs, as in the published code of DAFL: its BatchNorm sees one batch at a time.
    """

    kind: ClassVar[str] = "generator"

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
        self.optimizer = self._new_optimizer()
        self._z: Tensor

    def begin(self, targets: Targets, generator: torch.Generator) -> None:
        self._z = self._draw(len(targets.labels), generator)

    def images(self) -> Tensor:
        images: Tensor = self.module(self._z)
        return images

    def fresh(self, targets: Targets, generator: torch.Generator) -> Tensor:
        images: Tensor = self.module(self._draw(len(targets.labels), generator))
        return images

    def restart(self, generator: torch.Generator) -> None:
        reinitialize(self.module, generator)
        self.optimizer = self._new_optimizer()

    def state(self) -> State:
        return {"module": self.module.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state(self, state: State) -> None:
        self.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])

    def _draw(self, count: int, generator: torch.Generator) -> Tensor:
        device = next(self.module.parameters()).device
        return sent(torch.randn(count, self.latent, generator=generator), device)

    def _new_optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.module.parameters(), lr=self.learning_rate, betas=BETAS)
