"""The confusion matrix: counted right, readable as text, and a picture of the same counts."""

from __future__ import annotations

import io

import numpy as np
import pytest

from dfkd_meta.errors import DataError
from dfkd_meta.report.confusion import CELL, RIGHT, WHITE, as_png, as_text, confusion

LABELS, ANSWERS = [0, 0, 0, 1, 1, 2], [0, 0, 1, 1, 1, 0]
MATRIX = confusion(LABELS, ANSWERS, 4)


def test_rows_are_true_and_columns_predicted() -> None:
    assert MATRIX.tolist() == [[2, 1, 0, 0], [0, 2, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    assert MATRIX.dtype == np.int64
    assert confusion([], [], 2).tolist() == [[0, 0], [0, 0]]


@pytest.mark.parametrize(
    ("labels", "answers"), [([0, 1], [0]), ([0, 4], [0, 0]), ([0, 0], [0, -1]), ([[0]], [[0]])]
)
def test_what_cannot_be_counted_is_refused(labels: list, answers: list) -> None:
    with pytest.raises(DataError, match=r"do not pair|expected 0 to 3"):
        confusion(labels, answers, 4)


def test_text_lines_up_and_says_what_part_is_right() -> None:
    lines = as_text(MATRIX, ["cat", "dog", "mouse", "none"]).split("\n")
    assert [line.split() for line in lines] == [
        ["true", "cat", "dog", "mouse", "none", "right"],
        ["cat", "2", "1", ".", ".", "66.7", "%"],
        ["dog", ".", "2", ".", ".", "100.0", "%"],
        ["mouse", "1", ".", ".", ".", "0.0", "%"],
        ["none", ".", ".", ".", ".", "-"],
    ]
    assert len({len(line) for line in lines}) == 1
    assert as_text(MATRIX).split("\n")[1].startswith("0     2  1")


def test_the_picture_shades_cells_by_their_share_of_the_row() -> None:
    image = pytest.importorskip("PIL.Image", reason="needs Pillow (extra [data])")
    picture = np.asarray(image.open(io.BytesIO(as_png(MATRIX, scale=1)))).astype(int)
    assert picture.shape == (5 * CELL, 5 * CELL, 3)

    def corner(row: int, column: int) -> list[int]:
        """The background of a cell, whose number stands in its middle."""
        return list(picture[(row + 1) * CELL + 2, (column + 1) * CELL + 2])

    assert corner(1, 1) == list(RIGHT)
    assert corner(1, 0) == corner(3, 3) == list(WHITE)
    share = (1 / 3) ** 0.5
    assert corner(0, 1) == pytest.approx(
        [255 - share * 40, 255 - share * 195, 255 - share * 205], 1
    )
    assert corner(2, 0)[0] > corner(2, 0)[1]  # all wrong: red


def ink(matrix: np.ndarray, row: int, column: int) -> np.ndarray:
    image = pytest.importorskip("PIL.Image", reason="needs Pillow (extra [data])")
    picture = np.asarray(image.open(io.BytesIO(as_png(matrix, scale=1))))
    cell = picture[row * CELL + 1 : (row + 1) * CELL, column * CELL + 1 : (column + 1) * CELL]
    return (cell != cell[1, 1]).any(-1)


def test_numbers_are_written_in_the_cells() -> None:
    one, other = np.diag([17, 1]), np.diag([71, 1])
    assert ink(one, 1, 1).sum() > 20
    assert not np.array_equal(ink(one, 1, 1), ink(other, 1, 1))
    assert not ink(one, 1, 2).any()  # nothing is written for zero
    assert ink(np.diag([123456789, 1]), 1, 1).sum() == 0  # no room
