"""Batches of model inputs out of a data set of raw samples."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dfkd_meta.batches import SyntheticBatch, concatenate
from dfkd_meta.data.dataset import Dataset
from dfkd_meta.errors import DataError
from dfkd_meta.sidecar.manifest import InputSpec
from dfkd_meta.teachers import preprocess


def batches(
    dataset: Dataset,
    inputs: InputSpec,
    *,
    batch_size: int,
    generator: torch.Generator | None = None,
    limit: int | None = None,
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Yield ``(images, labels)``: model-normalized float32 `n ...` and int64 `n` or None.

    The order is that of the data set, or a permutation drawn from ``generator``; ``limit`` keeps
    that many samples. Pixels are brought to ``inputs.value_range`` first. Raises DataError.
    """
    if batch_size < 1 or (limit is not None and limit < 1):
        raise DataError(f"batch_size {batch_size} and limit {limit} must be at least 1")
    _refuse_no_pixels(dataset, inputs)
    order = np.arange(len(dataset))
    if generator is not None:
        order = torch.randperm(len(dataset), generator=generator).numpy()
    order = order[:limit]
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        labels = None if dataset.labels is None else torch.from_numpy(dataset.labels[chosen])
        yield _images(dataset, chosen, inputs), labels


def count_batches(dataset: Dataset, batch_size: int, limit: int | None = None) -> int:
    """How many batches ``batches`` will yield."""
    samples = len(dataset) if limit is None else min(limit, len(dataset))
    return -(-samples // batch_size)


def _images(dataset: Dataset, chosen: NDArray[np.int64], inputs: InputSpec) -> Tensor:
    groups = [chosen] if dataset.uniform else [chosen[i : i + 1] for i in range(len(chosen))]
    done = [preprocess(_in_range(dataset, dataset.read(group), inputs), inputs) for group in groups]
    return done[0] if len(done) == 1 else torch.cat(done)


def _in_range(dataset: Dataset, raw: Tensor, inputs: InputSpec) -> Tensor:
    """Pixels in [0, 1] mapped to the teacher's raw range, e.g. [0, 255]; other values kept."""
    if dataset.value_range is None or list(dataset.value_range) == list(inputs.value_range):
        return raw
    (low, high), (new_low, new_high) = dataset.value_range, inputs.value_range
    return (raw - low) / (high - low) * (new_high - new_low) + new_low


def _refuse_no_pixels(dataset: Dataset, inputs: InputSpec) -> None:
    """Whole numbers that lie in the teacher's range as they are would be scaled out of it."""
    if dataset.whole is None:
        return
    (largest, white), (low, high) = dataset.whole, inputs.value_range
    if 1 <= largest <= high and (low, high) != (0, white):
        raise DataError(
            f"whole numbers are pixels of which {white} is white, these reach to {largest} only, "
            f"and the teacher takes {low:g} to {high:g}",
            where=dataset.name,
            hint="if they are values as they are, store them as floats",
        )


def real_pool(dataset: Dataset, inputs: InputSpec, *, limit: int | None = None) -> SyntheticBatch:
    """A real data set as a pool: images float32 `n ...`, model-normalized, with labels if known."""
    parts = [
        SyntheticBatch(images, labels)
        for images, labels in batches(dataset, inputs, batch_size=1000, limit=limit)
    ]
    return concatenate(parts)
