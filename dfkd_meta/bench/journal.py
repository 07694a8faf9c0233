"""The journal of a bench: one JSON line per finished run, appended whole, never rewritten."""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from dfkd_meta.errors import UsageError
from dfkd_meta.folders import write_whole

Record = dict[str, Any]


class Costs(NamedTuple):
    """The columns of seconds and of memory in a table, and what they are called in a record."""

    device: str
    seconds: str
    memory_column: str
    memory: str


ON_CPU = Costs("CPU", "cpu_seconds", "peak MiB", "peak_memory_mb")
ON_GPU = Costs("GPU", "seconds", "peak GPU MiB", "peak_gpu_memory_mb")


def costs_of(record: Record) -> Costs:
    """A CPU counts the seconds of the process, a GPU those on the wall."""
    return ON_GPU if record["machine"]["device"] == "cuda" else ON_CPU


def read_journal(path: Path) -> dict[str, Record]:
    """The latest record of every key, in the order they were written.

    A last line without its end was torn by a kill: no record.
    Raises UsageError when another line is not a record.
    """
    if not path.exists():
        return {}
    records: dict[str, Record] = {}
    whole = _whole(path.read_bytes())
    for number, line in enumerate(whole.splitlines(), 1):
        try:
            record = json.loads(line)
            _check_fields(record)
            records.pop(record["key"], None)  # a key written again goes to the end
            records[record["key"]] = record
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            raise UsageError(
                f"line {number} is not a record of a run",
                where=str(path),
                hint="remove the line; its run is then made again",
            ) from error
    return records


def unfinished(record: Record | None) -> bool:
    """Whether a run is to be made, or made again: a refusal is final, a failure is not."""
    return record is None or record["status"] == "failed"


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
    """Add one record: a single write, on the disk when this returns.

    Raises OSError when the disk is full; then the journal is as it was.
    """
    line = (json.dumps(record, sort_keys=True, allow_nan=False) + "\n").encode()
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    before = os.fstat(handle).st_size
    try:
        if os.write(handle, line) < len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        os.fsync(handle)
    except OSError:
        os.ftruncate(handle, before)
        raise
    finally:
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Write a file, whole or not at all."""
    write_whole(path.parent, {path.name: text.encode()})


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


def _check_fields(record: Record) -> None:
    """What readers of a journal rely on. Raises KeyError, TypeError."""
    done = ["result", "teacher", "machine"] if record["status"] == "done" else []
    for name in ["key", "reason", "cell", "sidecar", *done]:
        record[name]


def _whole(content: bytes) -> bytes:
    return content[: content.rfind(b"\n") + 1]
