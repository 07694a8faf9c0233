"""The values of the tensor file as numpy arrays, and back to bytes.

Apart from the headers, because numpy takes as long to import as everything else together: what only
looks at a manifest never waits for it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from dfkd_meta.sidecar.store import Entry

Array = npt.NDArray[Any]
DTYPES = {"F16": "<f2", "F32": "<f4", "F64": "<f8", "I64": "<i8"}
HALF = (1e-3, 6e4)


def view(data: bytes, entry: Entry, data_begin: int = 0) -> Array:
    """The tensor as a read-only view of ``data`` (little endian, C order)."""
    dtype = np.dtype(DTYPES[entry.dtype])
    begin = data_begin + entry.begin
    flat = np.frombuffer(data, dtype, count=math.prod(entry.shape), offset=begin)
    return flat.reshape(entry.shape)


def dump_tensors(tensors: Mapping[str, Array]) -> bytes:
    """Serialize by name. The same arrays give the same bytes, in whatever order they come."""
    from safetensors.numpy import save  # only writers need the library

    # No __metadata__: with two or more keys safetensors writes them in a random order.
    return save({name: np.ascontiguousarray(array) for name, array in sorted(tensors.items())})


def float32(values: Array) -> Array:
    """A writable copy as contiguous float32; what overflows becomes infinity (refused later)."""
    with np.errstate(over="ignore"):
        return np.array(values, dtype=np.float32, order="C")


def float16_or_32(values: Array) -> Array:
    """A copy as float16 where its scale allows (the largest magnitude within HALF), else float32.

    Rounding then moves no value by more than 2^-11 of itself or 2^-15 of the largest.
    """
    largest = float(np.abs(values).max(initial=0.0))
    if largest and not HALF[0] <= largest <= HALF[1]:
        return float32(values)
    return np.array(values, dtype=np.float16, order="C")
