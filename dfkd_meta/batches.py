"""What passes from synthesis to distillation: images, and nothing that knows how they were made."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dfkd_meta.checkpoint import State
from dfkd_meta.waiting import sent

NUMBERS = 2**23  # in the inputs that a network is shown together


def fitting(inputs: int, shape: Sequence[int], numbers: int = NUMBERS) -> int:
    """``inputs`` of this shape, or as many (at least one) as hold no more numbers than these."""
    return max(1, min(inputs, numbers // math.prod(shape)))


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
        index = sent(index, self.images.device)
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


class Pool:
    """The latest ``capacity`` rows added, drawn in shuffled passes.

    Rows that were added start a fresh pass, so that new inputs are used at once.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.added = 0
        self._images: Tensor | None = None  # room for all that it will ever hold: a ring
        self._labels: Tensor | None = None
        self._order = torch.empty(0, dtype=torch.int64)

    def __len__(self) -> int:
        return min(self.added, self.capacity)

    def add(self, batch: SyntheticBatch) -> None:
        """Append rows; the oldest make room. Rows without labels make the whole pool unlabeled.

        Of more rows than the pool holds, some from everywhere: rows may be sorted by class.
        """
        if len(batch) > self.capacity:
            batch = batch.select(torch.arange(self.capacity) * len(batch) // self.capacity)
        labeled = batch.labels is not None and (self._labels is not None or not self.added)
        self._images = self._room(self._images, batch.images)
        self._labels = self._room(self._labels, batch.labels) if labeled else None
        place = (self.added + torch.arange(len(batch))) % self.capacity
        self._images[place] = batch.images
        if self._labels is not None and batch.labels is not None:
            self._labels[place] = batch.labels
        self.added += len(batch)
        self._order = self._order[:0]

    def draw(self, batch_size: int, generator: torch.Generator) -> SyntheticBatch:
        """The next mini-batch: every row once per pass, in a fresh order each pass.

        A pool smaller than ``batch_size`` is repeated inside a batch.
        """
        while len(self._order) < batch_size:
            self._order = torch.cat([self._order, torch.randperm(len(self), generator=generator)])
        chosen, self._order = self._order[:batch_size], self._order[batch_size:]
        return self.contents().select(chosen)

    def contents(self) -> SyntheticBatch:
        """All rows now in the pool. Raises ValueError when there are none."""
        if self._images is None:
            raise ValueError("the pool is empty")
        count = len(self)
        labels = None if self._labels is None else self._labels[:count]
        return SyntheticBatch(self._images[:count], labels)

    def state(self, *, with_rows: bool = True) -> State:
        """What is left of the current pass; the rows too, unless they can be had again."""
        state: State = {"added": self.added, "order": self._order}
        if with_rows and self.added:
            rows = self.contents()
            state.update(images=rows.images, labels=rows.labels)
        return state

    def load_state(self, state: State, device: torch.device) -> None:
        """Continue from a saved state of a pool of the same capacity (and rows, if not in it)."""
        self.added, self._order = state["added"], state["order"]
        if "images" in state:
            labels = state["labels"]
            self._images = state["images"].to(device)
            self._labels = None if labels is None else labels.to(device)

    def _room(self, rows: Tensor | None, new: Tensor | None) -> Tensor:
        """``rows`` with room for as many like ``new`` as the capacity."""
        if new is None:
            raise ValueError("no rows to make room for")
        if rows is not None and len(rows) == self.capacity:
            return rows
        larger = new.new_zeros(self.capacity, *new.shape[1:])
        if rows is not None:
            larger[: len(rows)] = rows
        return larger


def shuffled(
    pool: SyntheticBatch, *, batch_size: int, generator: torch.Generator
) -> Iterator[SyntheticBatch]:
    """Endless mini-batches of ``pool``, as ``Pool.draw`` makes them."""
    rows = Pool(len(pool))
    rows.add(pool)
    while True:
        yield rows.draw(batch_size, generator)
