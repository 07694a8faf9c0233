"""Which classes a model takes for which: the counts, as text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dfkd_meta.errors import DataError

Matrix = NDArray[np.int64]


def confusion(labels: ArrayLike, predicted: ArrayLike, classes: int) -> Matrix:
    """Counts int64 `classes classes`: row the true class, column the class predicted.

    labels, predicted: whole numbers `n` in [0, classes). Raises DataError for others.
    """
    rows, columns = np.asarray(labels, np.int64), np.asarray(predicted, np.int64)
    if rows.shape != columns.shape or rows.ndim != 1:
        raise DataError(f"labels {list(rows.shape)} and answers {list(columns.shape)} do not pair")
    both = np.concatenate([rows, columns])
    if both.size and (both.min() < 0 or both.max() >= classes):
        raise DataError(f"classes from {both.min()} to {both.max()}, expected 0 to {classes - 1}")
    counts = np.bincount(rows * classes + columns, minlength=classes**2)
    return counts.reshape(classes, classes).astype(np.int64)


def as_text(matrix: Matrix, names: Sequence[str] | None = None) -> str:
    """A table: a row for each true class, its counts by predicted class, and the part right."""
    names = [str(index) for index in range(len(matrix))] if names is None else list(names)
    widths = [
        max(len(name), len(str(column.max()))) for name, column in zip(names, matrix.T, strict=True)
    ]
    first = max(len("true"), *map(len, names))

    def line(head: str, cells: Sequence[str], last: str) -> str:
        inner = "  ".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True))
        return f"{head.ljust(first)}  {inner}  {last.rjust(7)}"

    lines = [line("true", names, "right")]
    for index, (name, row) in enumerate(zip(names, matrix, strict=True)):
        part = f"{100 * row[index] / row.sum():.1f} %" if row.sum() else "-"
        lines.append(line(name, [str(count) if count else "." for count in row], part))
    return "\n".join(lines)
