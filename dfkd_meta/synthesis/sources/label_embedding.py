"""Latents that are label embeddings seen through a noisy layer (NAYER)."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from dfkd_meta.checkpoint import State
from dfkd_meta.synthesis.sources.base import Source
from dfkd_meta.synthesis.sources.networks import reinitialize
from dfkd_meta.synthesis.targets import Targets
from dfkd_meta.waiting import sent


class LabelEmbeddingSource(Source):
    """The latent of an input is ``W_r e_c + b_r``: its class's embedding through a noisy layer.

    ``embeddings`` float32 `c e` stay fixed. The noisy layers' weights are drawn from N(0, 1) for
    each batch (biases 0) and trained with the generator; the r-th input of a class uses layer r, so
    that no two inputs are alike (the published code cuts the batch into slices of c inputs with a
    layer each, which is the same for a balanced batch). There is no other noise.

    The generator is kept from batch to batch and starts afresh every ``life`` batches; the
    optimizer lives for one batch, as in the published code (Tran et al. 2024).
    """

    kind: ClassVar[str] = "label embedding"

    def __init__(
        self,
        module: nn.Module,
        embeddings: Tensor,
        latent: int,
        *,
        learning_rate: float = 4e-3,
        life: int = 10,
    ) -> None:
        self.module = module
        self.embeddings = embeddings
        self.latent = latent
        self.learning_rate = learning_rate
        self.life = life
        self.age = 0
        self._labels: Tensor
        self._layer: Tensor
        self._weights: Tensor
        self._biases: Tensor

    def begin(self, targets: Targets, generator: torch.Generator) -> None:
        if self.age == self.life:
            self.restart(generator)
        self.age += 1
        self._labels = targets.labels
        self._layer = occurrence(targets.labels)
        layers, size = int(self._layer.max()) + 1, self.embeddings.shape[1]
        drawn = torch.randn(layers, size, self.latent, generator=generator)
        self._weights = sent(drawn, targets.labels.device).requires_grad_()
        self._biases = self._weights.new_zeros(layers, self.latent, requires_grad=True)
        self.optimizer = torch.optim.Adam(
            [*self.module.parameters(), self._weights, self._biases],
            lr=self.learning_rate,
            betas=(0.5, 0.999),
        )

    def images(self) -> Tensor:
        # All classes through all layers, then each input takes its own: `r c z` -> `n z`.
        through = self.embeddings @ self._weights + self._biases[:, None]
        images: Tensor = self.module(through[self._layer, self._labels])
        return images

    def restart(self, generator: torch.Generator) -> None:
        reinitialize(self.module, generator)
        self.age = 0

    def state(self) -> State:
        return {"module": self.module.state_dict(), "age": self.age}

    def load_state(self, state: State) -> None:
        self.module.load_state_dict(state["module"])
        self.age = state["age"]


def occurrence(labels: Tensor) -> Tensor:
    """How often each label stood before in the batch: int64 `n` -> int64 `n`."""
    order = torch.argsort(labels, stable=True)
    ordered = labels[order]
    first = torch.searchsorted(ordered, ordered)
    count = torch.empty_like(labels)
    count[order] = torch.arange(len(labels), device=labels.device) - first
    return count


def spread_embeddings(count: int, size: int, generator: torch.Generator) -> Tensor:
    """``count`` fixed embeddings of norm 1, float32 `count size`, as far apart as there is room.

    Orthogonal where count <= size, else random directions.
    """
    drawn = torch.randn(count, size, generator=generator, dtype=torch.float64)
    if count <= size:
        drawn = torch.linalg.qr(drawn.T).Q.T
    return torch.nn.functional.normalize(drawn, dim=1).float().contiguous()
