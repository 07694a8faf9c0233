"""A generator that learns where to start from, so that few steps make a batch (FastDFKD)."""

from __future__ import annotations

import copy
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from dfkd_meta.checkpoint import State
from dfkd_meta.synthesis.sources.base import Source
from dfkd_meta.synthesis.sources.networks import reinitialize
from dfkd_meta.synthesis.targets import Targets
from dfkd_meta.waiting import sent

Update = Literal["fomaml", "reptile"]

REPTILE_SCALE = 67.0  # the published factor; Adam makes nearly any factor the same step


class MetaSource(Source):
    """Each batch is made by a copy theta' of the meta weights theta and a learnable latent `n z`.

    One Adam moves theta' (``learning_rate``) and the latents (``latent_rate``); both are forgotten
    after the batch. Then one step of an Adam of its own (``meta_rate``) moves theta:

    * ``fomaml``: along ``sum_k grad L(theta'_k)``, the gradients of all inner steps, theta'_0 =
      theta (first-order MAML; Fang et al. 2022);
    * ``reptile``: along ``67 (theta - theta'_K)``.

    In batch number ``reset_at`` (0, 1, ...) the first linear layer and the first BatchNorm of theta
    start afresh; the optimizer keeps its moments.
    """

    kind: ClassVar[str] = "meta"

    def __init__(
        self,
        module: nn.Module,
        latent: int,
        *,
        learning_rate: float,
        latent_rate: float,
        meta_rate: float,
        update: Update = "fomaml",
        reset_at: int | None = None,
    ) -> None:
        self.module = module
        self.latent = latent
        self.learning_rate = learning_rate
        self.latent_rate = latent_rate
        self.meta_rate = meta_rate
        self.update = update
        self.reset_at = reset_at
        self.batches = 0
        self._meta = self._meta_optimizer()
        self._fast: nn.Module
        self._z: Tensor

    def begin(self, targets: Targets, generator: torch.Generator) -> None:
        if self.batches == self.reset_at:
            for layer in first_layers(self.module):
                reinitialize(layer, generator)
        z = torch.randn(len(targets.labels), self.latent, generator=generator)
        self._z = sent(z, targets.labels.device).requires_grad_()
        self._fast = copy.deepcopy(self.module)
        groups: list[dict[str, Any]] = [
            {"params": self._fast.parameters()},
            {"params": [self._z], "lr": self.latent_rate},
        ]
        self.optimizer = torch.optim.Adam(groups, lr=self.learning_rate, betas=(0.5, 0.999))

    def images(self) -> Tensor:
        images: Tensor = self._fast(self._z)
        return images

    def after_step(self) -> None:
        if self.update == "fomaml":
            for theta, fast in self._pairs():
                if fast.grad is not None:
                    theta.grad = fast.grad if theta.grad is None else theta.grad + fast.grad

    @torch.no_grad()
    def end(self) -> None:
        self.batches += 1
        if self.update == "reptile":
            for theta, fast in self._pairs():
                theta.grad = REPTILE_SCALE * (theta - fast)
        self._meta.step()
        self._meta.zero_grad(set_to_none=True)

    def restart(self, generator: torch.Generator) -> None:
        reinitialize(self.module, generator)
        self._meta = self._meta_optimizer()

    def state(self) -> State:
        return {
            "module": self.module.state_dict(),
            "optimizer": self._meta.state_dict(),
            "batches": self.batches,
        }

    def load_state(self, state: State) -> None:
        self.module.load_state_dict(state["module"])
        self._meta.load_state_dict(state["optimizer"])
        self.batches = state["batches"]

    def _pairs(self) -> list[tuple[nn.Parameter, nn.Parameter]]:
        return list(zip(self.module.parameters(), self._fast.parameters(), strict=True))

    def _meta_optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.module.parameters(), lr=self.meta_rate, betas=(0.5, 0.999))


def first_layers(module: nn.Module) -> list[nn.Module]:
    """The first linear layer and the first BatchNorm layer of a generator, those that it has."""
    kinds = (nn.Linear, nn.modules.batchnorm._BatchNorm)
    found = [[part for part in module.modules() if isinstance(part, kind)] for kind in kinds]
    return [parts[0] for parts in found if parts]
