"""Small data sets written into temporary folders."""

from __future__ import annotations

import gzip
import os
import struct
from pathlib import Path

import numpy as np
import pytest

from dfkd_meta.sidecar.manifest import InputSpec

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (12, 5, 4), dtype=np.uint8)
LABELS = np.arange(12, dtype=np.uint8) % 3


def idx_bytes(array: np.ndarray) -> bytes:
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.tobytes()


def write_idx(folder: Path, prefix: str, packed: bool, labels: bool = True) -> Path:
    folder.mkdir(exist_ok=True)
    for what, array in (("images-idx3", IMAGES), ("labels-idx1", LABELS)):
        if what == "labels-idx1" and not labels:
            continue
        data = idx_bytes(array)
        name = f"{prefix}-{what}-ubyte" + (".gz" if packed else "")
        (folder / name).write_bytes(gzip.compress(data) if packed else data)
    return folder


@pytest.fixture
def spec() -> InputSpec:
    return InputSpec(
        shape=[1, 5, 4], axes=["c", "h", "w"], value_range=[0.0, 1.0], mean=[0.0], std=[1.0]
    )


@pytest.fixture
def real_mnist() -> Path:
    folder = os.environ.get("DFKD_META_DATA")
    if not folder:
        pytest.skip("DFKD_META_DATA names no folder with the real data")
    return Path(folder) / "mnist"
