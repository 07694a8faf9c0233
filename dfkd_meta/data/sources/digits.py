"""The handwritten digits inside scikit-learn: 1,797 images of 8x8, no download."""

from __future__ import annotations

import numpy as np

from dfkd_meta.data.dataset import ArrayDataset, Dataset
from dfkd_meta.data.sources import DataSource, data_sources, no_split
from dfkd_meta.errors import MissingExtraError


def open_digits(spec: str, split: str) -> Dataset:
    """Every fifth image of each class is for ``test``, the rest for ``train`` (fixed, 80/20)."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise MissingExtraError("scikit-learn", "data") from error
    if split not in ("train", "test"):
        raise no_split(split, ["train", "test"], where="digits")
    bunch = load_digits()
    images, labels = bunch.images.astype(np.uint8), bunch.target.astype(np.int64)
    rank = np.zeros(len(labels), dtype=np.int64)  # how many of its class came before
    for label in np.unique(labels):
        rank[labels == label] = np.arange((labels == label).sum())
    chosen = (rank % 5 == 4) == (split == "test")
    return ArrayDataset("digits", split, images[chosen], labels[chosen], white=16)


data_sources.register("digits")(
    DataSource("digits (inside scikit-learn)", lambda spec: spec == "digits", open_digits)
)
