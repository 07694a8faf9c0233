"""Folders that appear whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dfkd_meta.errors import UsageError


def require_free(out: Path, *, overwrite: bool = False) -> None:
    """Refuse, before any work is done, an output folder that holds something already.

    Raises UsageError when ``out`` is a file, or a non-empty folder without ``overwrite``.
    """
    if out.is_file():
        raise UsageError("the output folder is a file", where=str(out))
    if not overwrite and out.is_dir() and any(out.iterdir()):
        raise UsageError(
            "the output folder is not empty",
            where=str(out),
            hint="choose another --out, or --overwrite",
        )


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A scratch folder beside ``out`` that takes its place when the block ends without an error.

    On an error the scratch folder is removed and ``out`` stays as it was.
    """
    parent = out.resolve().parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=parent))
    except OSError as error:
        raise UsageError(f"cannot write there: {error.strerror}", where=str(out)) from error
    try:
        yield scratch
        scratch.chmod(0o755)
        if out.is_dir():
            shutil.rmtree(out)
        os.replace(scratch, out)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
