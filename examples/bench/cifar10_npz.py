"""CIFAR-10 as one .npz file that every command can read.

    python examples/bench/cifar10_npz.py FOLDER OUT.npz

FOLDER holds the official binary version (``data_batch_1.bin`` ... ``test_batch.bin``), or the
packed one with its own reader ``decode_cifar10.py``.
"""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

BATCHES = {"train": [f"data_batch_{number}" for number in range(1, 6)], "test": ["test_batch"]}
Batch = tuple[NDArray[np.uint8], NDArray[np.int64]]


def main() -> None:
    """Read every batch and write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    given = parser.parse_args()
    arrays: dict[str, NDArray[np.generic]] = {}
    for split, names in BATCHES.items():
        parts = [batch(given.folder, name) for name in names]
        arrays[f"{split}_images"] = np.concatenate([images for images, _ in parts])
        arrays[f"{split}_labels"] = np.concatenate([labels for _, labels in parts])
    np.savez(given.out, **arrays)
    print(f"wrote {given.out}: {len(arrays['train_labels']):,} + {len(arrays['test_labels']):,}")


def batch(folder: Path, name: str) -> Batch:
    """A batch of whichever version lies in the folder."""
    return (packed if (folder / "decode_cifar10.py").exists() else binary)(folder, name)


def binary(folder: Path, name: str) -> Batch:
    """A batch of the official binary version: records of a label and 3 x 32 x 32 bytes."""
    records = np.fromfile(folder / f"{name}.bin", np.uint8).reshape(-1, 1 + 3 * 32 * 32)
    return records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0].astype(np.int64)


def packed(folder: Path, name: str) -> Batch:
    """A batch of the packed version, by the reader that lies beside it."""
    spec = importlib.util.spec_from_file_location("decode_cifar10", folder / "decode_cifar10.py")
    if spec is None or spec.loader is None:
        raise SystemExit(f"cannot read {folder / 'decode_cifar10.py'}")
    reader = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reader)
    images = reader.decode((folder / f"{name}.med.xz").read_bytes())
    labels = np.load(folder / "labels.npz")[name]
    return images, labels.astype(np.int64)


if __name__ == "__main__":
    main()
