"""What a data set is here: numbered raw samples, labels if known, and the range of the values."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dfkd_meta.errors import DataError

MAX_CLASSES = 2**20  # a larger label is a mistake, and counting up to it fills the memory
Indices = Sequence[int] | NDArray[np.integer] | slice


class Dataset(ABC):
    """Samples by index.

    ``name`` and ``split`` say where they come from (``all`` when the source has no splits);
    ``labels`` are int64 `n` or None, ``class_names`` what they number where the source says it;
    ``value_range`` is (0, 1) for pixels and None when the values mean what their author says;
    ``whole`` is, of pixels stored as whole numbers, the largest that occurs and that of white;
    ``uniform`` says that all samples have one shape.
    """

    name: str
    split: str
    labels: NDArray[np.int64] | None
    class_names: list[str] | None = None
    value_range: tuple[float, float] | None = None
    whole: tuple[int, int] | None = None
    uniform: bool = True

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def read(self, indices: Indices) -> Tensor:
        """Raw float32 samples `n c h w` (or `n f`) in the order asked for. Raises DataError."""


class ArrayDataset(Dataset):
    """Samples of an array in memory: uint8-like pixels are divided by ``white``, floats kept.

    ``where`` (default: ``name``) is what errors name.
    """

    def __init__(
        self,
        name: str,
        split: str,
        images: NDArray[np.generic],
        labels: NDArray[np.generic] | None,
        *,
        white: int = 255,
        where: str | None = None,
    ) -> None:
        where = where or name
        self.name = name
        self.split = split
        self._white = white
        self._images = channels_first(images, where=where)
        self.labels = check_labels(labels, len(images), where=where)
        if np.issubdtype(images.dtype, np.integer):
            self.value_range = (0.0, 1.0)
            self.whole = int(images.max()), white
            if images.min() < 0 or images.max() > white:
                raise DataError(
                    f"whole-number pixels must lie within 0 and {white}, these reach from "
                    f"{images.min()} to {images.max()}",
                    where=where,
                    hint="store other values as floats",
                )

    def __len__(self) -> int:
        return len(self._images)

    def read(self, indices: Indices) -> Tensor:
        chosen = torch.from_numpy(self._images[indices].astype(np.float32))
        return chosen if self.value_range is None else chosen / self._white


class Subset(Dataset):
    """Some samples of another data set, in the order of ``indices``: int64 `n`."""

    def __init__(self, whole: Dataset, indices: NDArray[np.int64]) -> None:
        self._whole, self._indices = whole, indices
        self.name, self.split, self.class_names = whole.name, whole.split, whole.class_names
        self.labels = None if whole.labels is None else whole.labels[indices]
        self.value_range, self.whole, self.uniform = whole.value_range, whole.whole, whole.uniform

    def __len__(self) -> int:
        return len(self._indices)

    def read(self, indices: Indices) -> Tensor:
        return self._whole.read(self._indices[indices])


def channels_first(images: NDArray[np.generic], *, where: str) -> NDArray[np.generic]:
    """Bring samples to `n c h w` or `n f`; `n h w` is gray, `n c d h w` stays as it is.

    A 4-d array is `n h w c` when only its last axis has 1 or 3 entries, else `n c h w`. Raises
    DataError for another number of axes, no samples, or values that are not numbers.
    """
    number = np.issubdtype(images.dtype, np.integer) or np.issubdtype(images.dtype, np.floating)
    if not number:
        raise DataError(
            f"images of type {images.dtype} are not whole numbers or floats", where=where
        )
    if images.ndim not in (2, 3, 4, 5) or 0 in images.shape:
        raise DataError(
            f"images of shape {list(images.shape)} are not n c h w, n h w c, n h w, n c d h w or "
            "n f",
            where=where,
        )
    if images.ndim == 3:
        return images[:, np.newaxis]
    if images.ndim == 4 and images.shape[3] in (1, 3) and images.shape[1] not in (1, 3):
        return images.transpose(0, 3, 1, 2)
    return images


def check_labels(
    labels: NDArray[np.generic] | None, samples: int, *, where: str
) -> NDArray[np.int64] | None:
    """Labels as int64 `n`. Raises DataError unless they are one class number per sample."""
    if labels is None:
        return None
    if not np.issubdtype(labels.dtype, np.integer):
        raise DataError(
            f"labels of type {labels.dtype} are not whole numbers",
            where=where,
            hint="store the number of each class, from 0: labels.astype(int), or of names "
            "np.unique(labels, return_inverse=True)[1]",
        )
    if labels.shape != (samples,):
        raise DataError(
            f"labels of shape {list(labels.shape)} do not belong to {samples} samples",
            where=where,
            hint="one number per sample: labels.argmax(1) of one-hot rows, labels[:, 0] of a column"
            if labels.ndim == 2
            else None,
        )
    if labels.size and labels.min() < 0:
        raise DataError(f"a label is {labels.min()}; classes count from 0", where=where)
    if labels.size and labels.max() >= MAX_CLASSES:
        raise DataError(f"a label is {labels.max()}, which no class number is", where=where)
    return labels.astype(np.int64)
