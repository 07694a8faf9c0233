"""Canonical JSON: a stable text, and a reader that bounds what it reads."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfkd_meta.sidecar.json_text import MAX_DEPTH, JsonError, dump_json, parse_json

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | TEXT
SCALARS |= st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4)
)


@given(VALUES)
def test_what_is_written_reads_back_the_same(value: Any) -> None:
    text = dump_json(value)
    assert parse_json(text) == value
    assert dump_json(parse_json(text)) == text
    assert json.loads(text) == value


@given(st.dictionaries(TEXT, SCALARS))
def test_the_order_of_keys_does_not_matter(value: dict[str, Any]) -> None:
    turned = dict(reversed(value.items()))
    assert dump_json(turned) == dump_json(value)


def test_the_layout() -> None:
    text = dump_json({"b": [1, 2.5], "a": {"y": [], "x": [{"k": None}]}})
    assert text.decode() == (
        '{\n  "a": {\n    "x": [\n      {\n        "k": null\n      }\n    ],\n    "y": []\n  },\n'
        '  "b": [1, 2.5]\n}\n'
    )


@given(st.binary(max_size=200))
def test_any_bytes_give_a_value_or_a_json_error(data: bytes) -> None:
    with contextlib.suppress(JsonError):
        parse_json(data)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"[" * 100_000 + b"]" * 100_000, "DM106"),
        (b'{"a":' * 100_000, "DM106"),
        (b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1), "DM106"),
        (b"9" * 100_000, "DM105"),
        (b"-9223372036854775809", "DM105"),
        (b"[-1e999]", "DM105"),
        (b"[Infinity]", "DM105"),
        (b'{"a": 1, "a": 1}', "DM104"),
        (b'["\\udfff"]', "DM103"),
        (b'{"\\ud800": 1}', "DM103"),
        (b"\xef\xbb\xbf{}", "DM103"),
        (b"", "DM103"),
        (b"[1] [2]", "DM103"),
    ],
    ids=str,
)
def test_hostile_texts_are_refused(data: bytes, code: str) -> None:
    with pytest.raises(JsonError) as refusal:
        parse_json(data)
    assert refusal.value.code == code


def test_the_deepest_allowed_text_is_read() -> None:
    assert parse_json(b"[" * MAX_DEPTH + b"1" + b"]" * MAX_DEPTH) is not None


def test_too_long_a_text_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(JsonError) as refusal:
        parse_json(b"not even JSON", max_bytes=4)
    assert refusal.value.code == "DM102"
