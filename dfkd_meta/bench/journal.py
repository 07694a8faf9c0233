"""The journal of a bench: one JSON line per finished run, appended whole, never rewritten."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dfkd_meta.errors import UsageError

Record = dict[str, Any]


def read_journal(path: Path) -> dict[str, Record]:
    """The latest record of every key. A last line without its end was torn by a kill: no record.

    Raises UsageError when another line is not a record.
    """
    if not path.exists():
        return {}
    records: dict[str, Record] = {}
    whole = _whole(path.read_bytes())
    for number, line in enumerate(whole.splitlines(), 1):
        try:
            record = json.loads(line)
            records[record["key"]] = record
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(
                f"line {number} is not a record of a run",
                where=str(path),
                hint="remove the line; its run is then made again",
            ) from error
    return records


def repair_journal(path: Path) -> bool:
    """Cut off a torn last line; True if there was one."""
    if not path.exists():
        return False
    found = path.read_bytes()
    whole = _whole(found)
    if len(whole) == len(found):
        return False
    os.truncate(path, len(whole))
    return True


def append_record(path: Path, record: Record) -> None:
    """Add one record: a single write, on the disk when this returns."""
    line = json.dumps(record, sort_keys=True, allow_nan=False) + "\n"
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(handle, line.encode())
        os.fsync(handle)
    finally:
        os.close(handle)


def write_whole(path: Path, text: str) -> None:
    """Write a file, whole or not at all."""
    unfinished = path.with_name(path.name + ".tmp")
    unfinished.write_text(text, encoding="utf-8")
    os.replace(unfinished, path)


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Hold ``folder`` for this process; the system lets go of it even after a kill.

    Raises UsageError when another bench works in it.
    """
    with (folder / "lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UsageError(
                "another bench is at work in this folder", where=str(folder)
            ) from error
        yield


def _whole(content: bytes) -> bytes:
    return content[: content.rfind(b"\n") + 1]
