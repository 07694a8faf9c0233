"""``open_data``: one text that names a data set, whatever holds it."""

from __future__ import annotations

import os

from dfkd_meta.data.dataset import Dataset
from dfkd_meta.data.sources import data_sources, no_split
from dfkd_meta.errors import DataError

UNASKED = ("train", "test")  # the splits that commands take where nobody names one


def open_data(spec: str, *, split: str = "train") -> Dataset:
    """Open ``SPEC`` or ``SPEC#split``, where SPEC is

    * ``digits``, the images inside scikit-learn;
    * a folder of MNIST-style idx files, or of images;
    * a file ``.npz`` or ``.safetensors`` with ``images`` and perhaps ``labels``;
    * ``module:function``, the caller's own code.

    Data without splits serve as ``train`` and as ``test``, but have no split that SPEC names.
    Raises DataError when nothing of that name can be read, MissingExtraError, and UsageError for
    the caller's own code.
    """
    path, named = _cut(spec)
    if named is None and split not in UNASKED:
        named = split
    dataset = _open(path, split if named is None else named)
    if named is not None and named != "all" and dataset.split == "all":
        raise no_split(named, ["all"], where=path)
    return dataset


def _open(spec: str, split: str) -> Dataset:
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


def data_paths(*specs: object) -> list[str]:
    """Each SPEC without its split: the files and folders that must stay; what is no text is none.

    Some of them, such as ``digits``, are no paths at all.
    """
    return [_cut(spec)[0] for spec in specs if isinstance(spec, str)]


def _cut(spec: str) -> tuple[str, str | None]:
    """SPEC and the split behind it, None where there is none; a path may hold a # of its own."""
    name, mark, split = spec.rpartition("#")
    return (name, split) if mark and name and not os.path.exists(spec) else (spec, None)
