"""``open_data``: one text that names a data set, whatever holds it."""

from __future__ import annotations

from pathlib import Path

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
    if mark and name and not Path(spec).exists():
        spec, split = name, own_split
    for source in (data_sources.get(entry) for entry in data_sources.names()):
        if source.claims(spec):
            return source.open(spec, split)
    known = "; ".join(data_sources.get(entry).what for entry in data_sources.names())
    there = Path(spec).exists()
    raise DataError(
        "nothing in it can be read as data" if there else "there are no data of that name",
        where=spec,
        hint=f"one of: {known}",
    )
