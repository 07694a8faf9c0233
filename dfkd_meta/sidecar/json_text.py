"""Canonical JSON, and a reader of hostile JSON: bounded size, depth, numbers; no duplicate keys."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from dfkd_meta.sidecar.issues import pointer

MAX_MANIFEST_BYTES = 4 * 2**20
MAX_DEPTH = 32
INT_RANGE = 2**63


class JsonError(ValueError):
    """A text that is refused; ``code`` is the finding (DM1xx)."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def parse_json(data: bytes, max_bytes: int = MAX_MANIFEST_BYTES) -> Any:
    """Parse UTF-8 JSON within the limits. Raises JsonError and nothing else."""
    if len(data) > max_bytes:
        raise JsonError("DM102", f"{len(data):,} bytes; at most {max_bytes:,} are allowed")
    try:
        document = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_object,
            parse_int=_integer,
            parse_float=_float,
            parse_constant=_constant,
        )
    except UnicodeDecodeError as error:
        raise JsonError("DM103", f"not UTF-8 at byte {error.start}") from error
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise JsonError("DM103", f"not JSON: {error.msg} ({where})") from error
    except RecursionError as error:
        raise JsonError("DM106", f"nested deeper than {MAX_DEPTH} levels") from error
    _check_depth(document)
    return document


def dump_json(document: Any) -> bytes:
    """Canonical bytes: sorted keys, indent by two, lists of scalars on one line, final newline."""
    return ("".join(_lines(document, "\n")) + "\n").encode("utf-8")


def dump_manifest(document: Any) -> bytes:
    """Canonical bytes; without white space where these alone would exceed the limit."""
    spaced = dump_json(document)
    if len(spaced) <= MAX_MANIFEST_BYTES:
        return spaced
    options: dict[str, Any] = {"ensure_ascii": False, "allow_nan": False, "sort_keys": True}
    return json.dumps(document, separators=(",", ":"), **options).encode("utf-8")


def _lines(value: Any, newline: str) -> Iterator[str]:
    inner = newline + "  "
    if isinstance(value, dict) and value:
        for number, key in enumerate(sorted(value)):
            yield ("{" if number == 0 else ",") + inner + _scalar(key) + ": "
            yield from _lines(value[key], inner)
        yield newline + "}"
    elif isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
        for number, item in enumerate(value):
            yield ("[" if number == 0 else ",") + inner
            yield from _lines(item, inner)
        yield newline + "]"
    else:
        yield _scalar(value)


def _scalar(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def unsorted_objects(value: Any, *path: str | int) -> Iterator[str]:
    """JSON pointers of objects whose keys are not in order of code points."""
    if isinstance(value, dict):
        keys = list(value)
        if any(first > second for first, second in pairwise(keys)):
            yield pointer(*path)
        for key, item in value.items():
            yield from unsorted_objects(item, *path, key)
    elif isinstance(value, list):
        for number, item in enumerate(value):
            if isinstance(item, dict | list):
                yield from unsorted_objects(item, *path, number)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise JsonError("DM104", f"the key {twice[:80]!r} occurs twice in one object")
    return made


def _integer(text: str) -> int:
    # A 64-bit integer has at most 20 characters; longer ones are never converted (quadratic time).
    if len(text) > 20 or not -INT_RANGE <= int(text) < INT_RANGE:
        raise JsonError("DM105", f"the integer {text[:24]}... does not fit 64 bits")
    return int(text)


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise JsonError("DM105", f"the number {text[:24]} is not finite")
    return value


def _constant(text: str) -> float:
    raise JsonError("DM105", f"{text} is not a JSON number")


def _check_depth(document: Any) -> None:
    """Refuse deep nesting and texts that UTF-8 cannot hold, without recursion."""
    level: list[Any] = [document]
    depth = 0  # objects and lists around what is in ``level``
    while level:
        if depth == MAX_DEPTH and any(isinstance(value, dict | list) for value in level):
            raise JsonError("DM106", f"nested deeper than {MAX_DEPTH} levels")
        below: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                _check_text(value)
                below.extend(value.values())
            elif isinstance(value, list):
                below.extend(value)
            elif isinstance(value, str):
                _check_text((value,))
        level, depth = below, depth + 1


def _check_text(texts: Any) -> None:
    for text in texts:
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise JsonError("DM103", "a text holds half a surrogate pair") from error
