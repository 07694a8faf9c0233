"""Where samples come from: one file per source, each saying which specifications are its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dfkd_meta.data.dataset import Dataset
from dfkd_meta.errors import DataError
from dfkd_meta.registry import Registry


@dataclass(frozen=True)
class DataSource:
    """``claims(spec)`` is cheap and true for at most one source; ``open(spec, split)`` reads."""

    what: str
    claims: Callable[[str], bool]
    open: Callable[[str, str], Dataset]


DEFLATE_RATIO = 1100  # no gzip stream or zip member expands further: a header that says more lies

data_sources: Registry[DataSource] = Registry("data source", "dfkd_meta.data.sources")


def no_split(split: str, known: list[str], *, where: str) -> DataError:
    """The error for a split that is not there."""
    return DataError(f"there is no split {split!r}", where=where, hint="known: " + ", ".join(known))
