"""Folders in the format of MNIST: ``train-images-idx3-ubyte[.gz]`` and their labels."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from dfkd_meta.data.dataset import ArrayDataset, Dataset
from dfkd_meta.data.sources import DEFLATE_RATIO, DataSource, data_sources, no_split
from dfkd_meta.errors import DataError

PREFIX = {"train": "train", "test": "t10k"}
MAX_BYTES = 8 * 2**30


def claims_idx(spec: str) -> bool:
    return any(_find(Path(spec), prefix, "images", 3) for prefix in PREFIX.values())


def open_idx(spec: str, split: str) -> Dataset:
    """One split of an idx folder; labels may be absent. Raises DataError for a broken file."""
    folder = Path(spec)
    known = [name for name, prefix in PREFIX.items() if _find(folder, prefix, "images", 3)]
    images = _find(folder, PREFIX[split], "images", 3) if split in known else None
    if images is None:
        raise no_split(split, known, where=spec)
    labels = _find(folder, PREFIX[split], "labels", 1)
    return ArrayDataset(
        folder.resolve().name, split, read_idx(images, 3), read_idx(labels, 1) if labels else None
    )


def read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """An idx file of unsigned bytes, plain or gzipped. Raises DataError.

    What the header declares is compared with the size of the file before memory is taken.
    """
    packed = path.suffix == ".gz"
    try:
        with gzip.open(path) if packed else path.open("rb") as file:
            return _read(cast(BinaryIO, file), path, dimensions, DEFLATE_RATIO if packed else 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"the file is broken: {error}", where=str(path)) from error


def _read(file: BinaryIO, path: Path, dimensions: int, ratio: int) -> NDArray[np.uint8]:
    header = file.read(4 + 4 * dimensions)
    if len(header) < 4 + 4 * dimensions or header[:4] != bytes([0, 0, 8, dimensions]):
        raise DataError(
            f"not an idx file of unsigned bytes with {dimensions} dimensions (wrong magic number)",
            where=str(path),
        )
    shape = struct.unpack(f">{dimensions}I", header[4:])
    size = math.prod(shape)
    if size > min(ratio * path.stat().st_size, MAX_BYTES):
        raise DataError(f"the header declares {shape}, more than the file holds", where=str(path))
    body = file.read(size + 1)
    if len(body) != size:
        more = "more" if len(body) > size else "fewer"
        raise DataError(
            f"the file holds {more} bytes than its header {shape} says", where=str(path)
        )
    return np.frombuffer(body, dtype=np.uint8).reshape(shape)


def _find(folder: Path, prefix: str, what: str, dimensions: int) -> Path | None:
    for dot in "-.":  # both spellings are in circulation
        for ending in ("", ".gz"):
            name = f"{prefix}-{what}{dot}idx{dimensions}-ubyte{ending}"
            for path in folder.glob(name):
                return path
    return None


data_sources.register("idx")(
    DataSource("a folder of MNIST-style idx files (train-*, t10k-*)", claims_idx, open_idx)
)
