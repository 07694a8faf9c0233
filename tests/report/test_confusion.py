"""The confusion matrix: counted right, and readable as text."""

from __future__ import annotations

import numpy as np
import pytest

from dfkd_meta.errors import DataError
from dfkd_meta.report.confusion import as_text, confusion

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
