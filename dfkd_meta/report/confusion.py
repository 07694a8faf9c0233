"""Which classes a model takes for which: the counts, as text and as a picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dfkd_meta.errors import DataError
from dfkd_meta.report.grid import encode_png

Matrix = NDArray[np.int64]
Color = tuple[int, int, int]

CELL = 34  # pixels: four digits of the font fit at twice their size
WHITE, INK = (255, 255, 255), (0, 0, 0)
RIGHT, WRONG = (60, 150, 90), (215, 60, 50)
# Digits 0 to 9, each five rows of three pixels, the leftmost pixel the highest bit.
FONT = ("75557", "26227", "71747", "71717", "55711", "74717", "74757", "71111", "75757", "75717")


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


def as_png(matrix: Matrix, *, scale: int = 2) -> bytes:
    """The same as a PNG: class numbers along top and left, right answers green, wrong ones red.

    The shade is the square root of the share of the row, so that single errors can be seen; each
    pixel is drawn ``scale`` times as large.
    """
    classes = len(matrix)
    picture = np.full(((classes + 1) * CELL, (classes + 1) * CELL, 3), WHITE, np.uint8)
    for index in range(classes):
        _write(picture, 0, index + 1, str(index), INK)
        _write(picture, index + 1, 0, str(index), INK)
    for row, column in np.ndindex(classes, classes):
        count = int(matrix[row, column])
        shade = (count / max(int(matrix[row].sum()), 1)) ** 0.5
        color = np.array(RIGHT if row == column else WRONG)
        top, left = (row + 1) * CELL, (column + 1) * CELL
        inside = picture[top + 1 : top + CELL, left + 1 : left + CELL]
        inside[:] = (shade * color + (1 - shade) * np.array(WHITE)).round()
        if count:
            _write(picture, row + 1, column + 1, str(count), WHITE if shade > 0.6 else INK)
    return encode_png(picture.repeat(scale, axis=0).repeat(scale, axis=1))


def _write(picture: NDArray[np.uint8], row: int, column: int, digits: str, ink: Color) -> None:
    """Draw a whole number in the middle of a cell, as large as fits; if none does, nothing."""
    width = 4 * len(digits) - 1
    size = min(2, (CELL - 4) // width)
    if size < 1:
        return
    mask = np.zeros((5, width), bool)
    for index, digit in enumerate(digits):
        bits = [[int(line) >> (2 - x) & 1 for x in range(3)] for line in FONT[int(digit)]]
        mask[:, 4 * index : 4 * index + 3] = bits
    mask = mask.repeat(size, axis=0).repeat(size, axis=1)
    top = row * CELL + (CELL - mask.shape[0]) // 2
    left = column * CELL + (CELL - mask.shape[1]) // 2
    picture[top : top + mask.shape[0], left : left + mask.shape[1]][mask] = ink
