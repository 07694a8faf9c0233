"""The caller's own code: ``module:function``, called with ``split=...``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from dfkd_meta.data.dataset import ArrayDataset, Dataset
from dfkd_meta.data.sources import DataSource, data_sources
from dfkd_meta.errors import DataError
from dfkd_meta.teachers import call_own_code, is_own_code

CONTRACT = "it is called with split='train' or 'test' and returns (images, labels or None)"


def claims_python(spec: str) -> bool:
    return is_own_code(spec) and not Path(spec).exists()


def open_python(spec: str, split: str) -> Dataset:
    """Call the function; it returns a Dataset or ``(images, labels or None)`` as arrays."""
    made = call_own_code(spec, {"split": split}, contract=CONTRACT)
    if isinstance(made, Dataset):
        return made
    if not isinstance(made, tuple) or len(made) != 2:
        raise DataError(
            f"{spec} returned {type(made).__name__}, not (images, labels) or a Dataset",
            where=spec,
            hint="labels may be None",
        )
    images, labels = (None if part is None else _array(part, spec) for part in made)
    if images is None:
        raise DataError("the images are None", where=spec)
    return ArrayDataset(spec, split, images, labels)


def _array(values: Any, spec: str) -> np.ndarray[Any, Any]:
    if isinstance(values, Tensor):
        tensor = values.detach().cpu()
        # numpy has no bfloat16; samples become float32 anyway
        return (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    try:
        return np.asarray(values)
    except ValueError as error:
        raise DataError(f"not an array: {error}", where=spec) from error


data_sources.register("python")(
    DataSource("module:function, called with split=...", claims_python, open_python)
)
