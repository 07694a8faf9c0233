"""Pairs of the images of a data set, side by side: as many classes as it has, squared.

    python examples/bench/pairs_npz.py DATA OUT.npz

DATA is whatever ``--data`` reads: gray images of one size, with labels. A pair has the size of one
image, rounded up to a multiple of 16; it is of class ``left * classes + right``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from dfkd_meta.data import open_data

PAIRS = {"train": 40_000, "test": 5_000}


def main() -> None:
    """Draw the pairs of both splits and write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data")
    parser.add_argument("out", type=Path)
    given = parser.parse_args()
    arrays: dict[str, NDArray[np.generic]] = {}
    random = np.random.default_rng(0)
    for split, count in PAIRS.items():
        data = open_data(given.data, split=split)
        if data.labels is None:
            raise SystemExit(f"{given.data} has no labels")
        halves = narrowed(data.read(slice(None)))
        left, right = (random.integers(0, len(halves), count) for _ in range(2))
        pairs = torch.cat([halves[left], halves[right]], dim=3)
        arrays[f"{split}_images"] = (pairs * 255).round().clamp(0, 255).byte().numpy()
        classes = int(data.labels.max()) + 1
        arrays[f"{split}_labels"] = data.labels[left] * classes + data.labels[right]
    np.savez(given.out, **arrays)
    print(f"wrote {given.out}: {classes**2} classes")


def narrowed(images: torch.Tensor) -> torch.Tensor:
    """Images `n 1 h w` at half their width."""
    height, width = (-(-size // 16) * 16 for size in images.shape[2:])
    return torch.nn.functional.interpolate(
        images, size=(height, width // 2), mode="bilinear", antialias=True
    )


if __name__ == "__main__":
    main()
