"""Folders of images: ``<split>/<class>/*.png``, ``<class>/*.png``, or flat without labels."""

from __future__ import annotations

import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dfkd_meta.data.dataset import Dataset, Indices
from dfkd_meta.data.sources import DataSource, data_sources, no_split
from dfkd_meta.errors import DataError, MissingExtraError

ENDINGS = {".png", ".jpg", ".jpeg", ".bmp", ".ppm", ".pgm"}
FORMATS = ("PNG", "JPEG", "BMP", "PPM")
SPLITS = ("train", "test", "val", "valid", "validation")
# What Pillow raises on damaged files; warnings are made errors there.
BROKEN = (OSError, SyntaxError, ValueError, EOFError, Warning, struct.error, zlib.error)
MODES = {"1": "L", "L": "L", "RGB": "RGB", "P": "RGB"}  # nothing is lost on the way


def claims_images(spec: str) -> bool:
    return Path(spec).is_dir() and _any_image(Path(spec), depth=3)


def open_images(spec: str, split: str) -> Dataset:
    """List the images of a split; the classes are the folder names of all splits, sorted.

    Of all splits, so that a class keeps its number where another one has no images.
    """
    root = Path(spec)
    splits = _splits(root)
    if splits and split not in splits:
        raise no_split(split, splits, where=spec)
    base = root / split if splits else root
    classes = sorted({name for one in splits or [""] for name in _class_names(root / one)})
    flat = _images(base)
    labelled = [
        (path, label)
        for label, name in enumerate(classes)
        if (base / name).is_dir()
        for path in _images(base / name)
    ]
    if flat and labelled:
        raise DataError("images lie both beside and inside class folders", where=str(base))
    if not flat and not labelled:
        raise DataError("there are no images", where=str(base), hint=", ".join(sorted(ENDINGS)))
    paths = flat or [path for path, _ in labelled]
    labels = None if flat else np.array([label for _, label in labelled], dtype=np.int64)
    dataset = ImageFolder(paths, labels)
    dataset.name, dataset.split = root.resolve().name, split if splits else "all"
    dataset.class_names = None if flat else classes
    return dataset


class ImageFolder(Dataset):
    """Image files, decoded when read."""

    value_range = (0.0, 1.0)
    uniform = False

    def __init__(self, paths: list[Path], labels: np.ndarray[Any, Any] | None) -> None:
        self.paths = paths
        self.labels = labels

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, indices: Indices) -> Tensor:
        numbers = np.arange(len(self))[indices]
        images = [_decode(self.paths[number]) for number in numbers]
        shapes = {image.shape for image in images}
        if len(shapes) > 1:
            raise DataError(
                f"images of different shapes cannot be one batch: {sorted(map(list, shapes))[:3]}",
                where=str(self.paths[numbers[0]].parent),
            )
        return torch.stack(images) if images else torch.zeros(0, 1, 1, 1)


def _decode(path: Path) -> Tensor:
    """One image as float32 `c h w` in [0, 1], c = 1 (gray) or 3 (RGB). Raises DataError."""
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingExtraError("pillow", "data") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # among them a decompression bomb
            with Image.open(path, formats=FORMATS) as image:
                if image.mode not in MODES:
                    raise DataError(
                        f"an image of mode {image.mode} is neither gray nor RGB",
                        where=str(path),
                        hint="convert it, so that nobody guesses what to do with its alpha or "
                        "its depth; other images can be stored as an npz file, n c h w",
                    )
                pixels = np.asarray(image.convert(MODES[image.mode]), dtype=np.float32)
    except (*BROKEN, Image.DecompressionBombError) as e:
        raise DataError(f"not a readable image: {e}", where=str(path)) from e
    tensor = torch.from_numpy(pixels / 255)
    return tensor.unsqueeze(0) if tensor.ndim == 2 else tensor.permute(2, 0, 1).contiguous()


def _splits(root: Path) -> list[str]:
    """The folders that are splits. A single one without classes, beside classes, is one of them."""
    found = [name for name in SPLITS if (root / name).is_dir()]
    beside = [name for name in _class_names(root) if name not in SPLITS and _images(root / name)]
    a_class = len(found) == 1 and beside and not _class_names(root / found[0])
    return [] if a_class else found


def _class_names(folder: Path) -> list[str]:
    """The folders in it; hidden ones, such as ``.ipynb_checkpoints``, are those of other tools."""
    return [path.name for path in folder.iterdir() if path.is_dir() and path.name[0] != "."]


def _images(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in ENDINGS)


def _any_image(folder: Path, depth: int) -> bool:
    below = []
    for path in folder.iterdir():
        if path.suffix.lower() in ENDINGS:
            return True
        if depth > 1 and path.is_dir():
            below.append(path)
    return any(_any_image(path, depth - 1) for path in below)


data_sources.register("images")(DataSource("a folder of images", claims_images, open_images))
