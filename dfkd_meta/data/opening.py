"""``open_data``: one text that names a data set, whatever holds it."""

from __future__ import annotations

import os

from dfkd_meta.data.dataset import Dataset
from dfkd_meta.data.sources import data_sources
from dfkd_meta.errors import DataError


def open_data(spec: str, *, split: str = "train") -> Dataset:
    """Open ``SPEC`` or ``SPEC#split``, where SPEC is

    * ``digits``, the images inside scikit-learn;
    * a folder of MNIST-style idx files, or of images;
    * a file ``.npz`` or ``.safetensors`` with ``images`` and perhaps ``labels``;
    * ``module:function``, the caller's own code.

    Raises DataError when nothing of that name can be read, MissingExtraError, and UsageError for
    the caller's own code.
    """
    name, mark, own_split = spec.rpartition("#")
    if mark and name and not os.path.exists(spec):
        spec, split = name, own_split
    sources = [data_sources.get(entry) for entry in data_sources.names()]
    try:
        for source in sources:
            if source.claims(spec):
                return source.open(spec, split)
    except OSError as error:  # no permission, a name too long, a disk that fails
        raise DataError(f"cannot be read: {error.strerror or error}", where=spec) from error
    known = "; ".join(source.what for source in sources)
    there = os.path.exists(spec)
    raise DataError(
        "nothing in it can be read as data" if there else "there are no data of that name",
        where=spec,
        hint=f"one of: {known}",
    )
