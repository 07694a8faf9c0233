"""What passes from synthesis to distillation: images, and nothing that knows how they were made."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class SyntheticBatch:
    """Inputs for a student.

    images: float32 `n c h w` (or `n f`), model-normalized. labels: int64 `n`, the class each image
    was made for (or the true class of a real image), None when unknown.
    """

    images: Tensor
    labels: Tensor | None = None

    def __len__(self) -> int:
        return len(self.images)

    def select(self, index: Tensor) -> SyntheticBatch:
        """The rows of ``index`` (int64 `m`), in that order."""
        return SyntheticBatch(
            self.images[index], None if self.labels is None else self.labels[index]
        )

    def to(self, device: torch.device) -> SyntheticBatch:
        return SyntheticBatch(
            self.images.to(device), None if self.labels is None else self.labels.to(device)
        )


def concatenate(parts: list[SyntheticBatch]) -> SyntheticBatch:
    """All rows of all parts; labels only if every part has them."""
    labels = [part.labels for part in parts if part.labels is not None]
    return SyntheticBatch(
        torch.cat([part.images for part in parts]),
        torch.cat(labels) if len(labels) == len(parts) else None,
    )


def shuffled(
    pool: SyntheticBatch, *, batch_size: int, generator: torch.Generator
) -> Iterator[SyntheticBatch]:
    """Endless mini-batches: every row once per pass, in a fresh order each pass.

    A pool smaller than ``batch_size`` is repeated inside a batch.
    """
    order = torch.empty(0, dtype=torch.int64)
    while True:
        while len(order) < batch_size:
            order = torch.cat([order, torch.randperm(len(pool), generator=generator)])
        yield pool.select(order[:batch_size])
        order = order[batch_size:]
