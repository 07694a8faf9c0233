"""Arrays in one file: ``.npz`` (never pickled) or ``.safetensors``."""

from __future__ import annotations

import lzma
import math
import struct
import zipfile
import zlib
from pathlib import Path
from typing import cast

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from dfkd_meta.data.dataset import ArrayDataset, Dataset
from dfkd_meta.data.sources import DEFLATE_RATIO, DataSource, data_sources, no_split
from dfkd_meta.errors import DataError

Array = NDArray[np.generic]
BROKEN = (  # what zipfile, zlib and numpy raise on damaged files
    OSError,
    ValueError,
    KeyError,
    EOFError,
    RuntimeError,
    SyntaxError,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    zipfile.BadZipFile,
)


def claims_arrays(spec: str) -> bool:
    return Path(spec).suffix.lower() in (".npz", ".safetensors")


def open_arrays(spec: str, split: str) -> Dataset:
    """Keys ``<split>_images/_labels``, or ``images`` and ``labels`` (one unnamed split, ``all``).

    Raises DataError for a file that is broken, pickled or has other keys.
    """
    path = Path(spec)
    if not path.is_file():
        raise DataError("the file does not exist", where=spec)
    reader = NpzReader(path) if path.suffix.lower() == ".npz" else SafetensorsReader(path)
    keys = reader.keys()
    splits = [key.removesuffix("_images") for key in keys if key.endswith("_images")]
    if split in splits:
        prefix = f"{split}_"
    elif "images" in keys:
        prefix, split = "", "all"
    elif splits:
        raise no_split(split, splits, where=spec)
    else:
        raise DataError(
            "no array is called 'images' or '<split>_images'",
            where=spec,
            hint="rename them to images and labels; found: "
            + (", ".join(sorted(keys)[:8]) or "nothing"),
        )
    labels = reader.read(f"{prefix}labels") if f"{prefix}labels" in keys else None
    return ArrayDataset(path.stem, split, reader.read(f"{prefix}images"), labels, where=spec)


class NpzReader:
    """Arrays of an npz file, each checked against its header before memory is taken."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def keys(self) -> list[str]:
        try:
            with zipfile.ZipFile(self.path) as file:
                return [name.removesuffix(".npy") for name in file.namelist()]
        except BROKEN as error:
            raise DataError(f"not an npz file: {error}", where=str(self.path)) from error

    def read(self, key: str) -> Array:
        where = f"{self.path}: {key}"
        try:
            with zipfile.ZipFile(self.path) as file:
                self._check(file, f"{key}.npy", where)
                with file.open(f"{key}.npy") as member:
                    return cast(Array, npy.read_array(member, allow_pickle=False))
        except BROKEN as error:
            raise DataError(f"the array is broken: {error}", where=where) from error

    def _check(self, file: zipfile.ZipFile, name: str, where: str) -> None:
        with file.open(name) as member:
            version = npy.read_magic(member)
            header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            shape, _, dtype = header(member)
        if dtype.hasobject:
            raise DataError("the array holds pickled objects, which can run code", where=where)
        packed = min(file.getinfo(name).compress_size, self.path.stat().st_size)
        room = DEFLATE_RATIO * packed
        if math.prod(shape) * dtype.itemsize > room:
            raise DataError(f"the header declares {shape}, more than the file holds", where=where)


class SafetensorsReader:
    """Tensors of a safetensors file; the library compares sizes itself."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def keys(self) -> list[str]:
        try:
            with safe_open(self.path, framework="numpy") as file:
                return list(file.keys())
        except (SafetensorError, OSError) as error:
            raise DataError(f"not a safetensors file: {error}", where=str(self.path)) from error

    def read(self, key: str) -> Array:
        try:
            with safe_open(self.path, framework="numpy") as file:
                return cast(Array, file.get_tensor(key))
        except (SafetensorError, OSError, TypeError, AttributeError) as error:
            raise DataError(f"unreadable: {error}", where=f"{self.path}: {key}") from error


data_sources.register("arrays")(
    DataSource("a file .npz or .safetensors", claims_arrays, open_arrays)
)
