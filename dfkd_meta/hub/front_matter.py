"""The YAML block on top of a model card, edited key by key: what is not ours stays as it was."""

from __future__ import annotations

import re
from typing import Any

import yaml  # type: ignore[import-untyped]

from dfkd_meta.errors import HubError

_FENCED = re.compile(
    r"\A\ufeff?\s*---[ \t]*\r?\n(?P<yaml>.*?)^---[ \t]*(?:\r?\n|\Z)", re.DOTALL | re.MULTILINE
)
_TOP_LEVEL_KEY = re.compile(
    r"^(?=[^\s#\-\[\]{},])(?P<key>[^:\n]+?)[ \t]*:(?=[ \t\r\n]|\Z)", re.MULTILINE
)
_TAIL = re.compile(r"(?:^[ \t]*(?:#[^\n]*)?(?:\r?\n|\Z))+\Z", re.MULTILINE)
# PyYAML lets a date or a number that cannot be built, or too deep a nesting, through as it fails.
UNREADABLE = (yaml.YAMLError, ValueError, RecursionError)
_HINT = "mend the block between the '---' lines on top of README.md"


def parse(card: str) -> dict[str, Any]:
    """The metadata of a card; empty without a block. Raises HubError when it is not a mapping."""
    fenced = _FENCED.match(card)
    return _load(fenced["yaml"]) if fenced else {}


def update(card: str, values: dict[str, Any]) -> str:
    """Set top-level keys of the metadata; every other byte of the card stays.

    Raises HubError when the block cannot be read, or cannot be edited without touching the rest.
    """
    fenced = _FENCED.match(card)
    source = fenced["yaml"] if fenced else ""
    before = _load(source)
    absent = object()
    wanted = {key: new for key, new in values.items() if before.get(key, absent) != new}
    if not wanted:
        return card
    newline = "\r\n" if "\r\n" in card else "\n"
    for key, value in wanted.items():
        source = _set(source, key, _dump(key, value).replace("\n", newline), newline)
    if not _holds(source, before | wanted):
        raise HubError("the metadata of the model card cannot be edited safely", hint=_HINT)
    if fenced:
        return card[: fenced.start("yaml")] + source + card[fenced.end("yaml") :]
    return f"---{newline}{source}---{newline}" + (newline + card if card else "")


def _load(source: str) -> dict[str, Any]:
    try:
        data = yaml.safe_load(source) if source.strip() else {}
    except UNREADABLE as error:
        text = " ".join(str(error).split())
        raise HubError(f"the metadata of the model card is not YAML: {text}", hint=_HINT) from error
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise HubError("the metadata of the model card is not a mapping", hint=_HINT)
    return data


def _holds(source: str, expected: dict[str, Any]) -> bool:
    try:
        return bool(yaml.safe_load(source) == expected)
    except UNREADABLE:
        return False


def _dump(key: str, value: Any) -> str:
    return str(yaml.safe_dump({key: value}, sort_keys=False, allow_unicode=True))


def _set(source: str, key: str, text: str, newline: str) -> str:
    """Replace the block of a key (its trailing blank lines and comments stay) or append it."""
    starts = list(_TOP_LEVEL_KEY.finditer(source))
    for number, start in enumerate(starts):
        if start["key"].strip("\"'") == key:
            end = starts[number + 1].start() if number + 1 < len(starts) else len(source)
            tail = _TAIL.search(source, start.start(), end)
            return source[: start.start()] + text + (tail[0] if tail else "") + source[end:]
    if source and not source.endswith("\n"):
        source += newline
    return source + text
