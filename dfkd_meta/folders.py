"""Folders that appear whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from dfkd_meta.errors import DfkdMetaError, UsageError


def real_path(path: Path) -> Path:
    """The absolute path with links followed. Raises UsageError for what cannot be a path."""
    try:
        str(path).encode()
        return path.resolve()
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links; not UTF-8; a NUL
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"not a usable path: {reason}", where=ascii(str(path))) from error


def require_free(
    out: Path,
    *,
    overwrite: bool = False,
    needed: Iterable[Path | str | None] = (),
    beside: str = "",
    hint: str = "choose another --out, or --overwrite",
) -> None:
    """Refuse, before any work is done, an output folder that cannot become one.

    Raises UsageError when ``out`` is something else than a folder, a non-empty folder without
    ``overwrite``, the current folder or one above it, a mount point, holds one of the files or
    folders ``needed`` for the work, lies where no folder can be made, or has a name to which
    ``beside`` (what the name of a file beside it will end in) cannot be added.
    """
    place = real_path(out)
    try:
        for longer in (place, place.with_name(place.name + beside)):
            with suppress(FileNotFoundError):  # but not that a name is too long
                longer.stat()
        there = place.exists()
        if there and not place.is_dir():
            raise UsageError("the output folder is a file", where=str(out))
        if there and not overwrite and any(place.iterdir()):
            raise UsageError("the output folder is not empty", where=str(out), hint=hint)
        if Path.cwd().is_relative_to(place):
            raise UsageError(
                "the output folder would replace the folder you are in",
                where=str(out),
                hint="name a folder inside it, or one elsewhere",
            )
        if os.path.ismount(place):
            raise UsageError(
                "the output folder is a mount point, which nothing can take the place of",
                where=str(out),
                hint="name a folder inside it",
            )
        for name in needed:
            if name is not None and os.path.exists(name) and _within(Path(name), place):
                raise UsageError(
                    f"the output folder would replace what is needed: {name}",
                    where=str(out),
                    hint="choose another --out",
                )
        with _scratch_for(place):
            pass
    except OSError as error:
        raise _unwritable(error, out) from error


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A scratch folder beside ``out`` that takes its place when the block ends without an error.

    On an error the scratch folder is removed, with every folder made above it, and ``out`` stays
    as it was. Raises UsageError where no folder can be made, DfkdMetaError when writing fails.
    """
    place = real_path(out)
    with ExitStack() as stack:
        try:
            scratch = stack.enter_context(_scratch_for(place))
        except OSError as error:
            raise _unwritable(error, out) from error
        try:
            yield scratch
            scratch.chmod(0o755)
            _swap(scratch, place)
        except OSError as error:  # a full disk, above all
            reason = error.strerror or error
            raise DfkdMetaError(f"cannot write: {reason}", where=str(out)) from error


@contextmanager
def _scratch_for(place: Path) -> Iterator[Path]:
    """A folder beside ``place``, gone afterwards with every folder made above it that is empty."""
    made: list[Path] = []
    try:
        _make(place.parent, made)
        # The name is short, so that a name which the file system takes is never made too long.
        scratch = Path(tempfile.mkdtemp(prefix=".dfkd-meta.", dir=place.parent))
        try:
            yield scratch
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    finally:
        _remove(made)


def _within(path: Path, folder: Path) -> bool:
    return real_path(path).is_relative_to(folder)


def _make(folder: Path, made: list[Path]) -> None:
    """``mkdir -p`` that notes each folder it makes."""
    missing = [path for path in (folder, *folder.parents) if not os.path.lexists(path)]
    for path in reversed(missing):
        path.mkdir(exist_ok=True)
        made.append(path)


def _remove(made: list[Path]) -> None:
    for path in reversed(made):
        with suppress(OSError):  # someone else's files are in it by now
            path.rmdir()


def _swap(scratch: Path, place: Path) -> None:
    """Put ``scratch`` in the place of what is there; when that fails, what was there is back."""
    if not place.is_dir():
        os.replace(scratch, place)
        return
    aside = Path(tempfile.mkdtemp(prefix=".dfkd-meta.", dir=place.parent))
    try:
        os.replace(place, aside)
        os.replace(scratch, place)
    except BaseException:  # Ctrl-C too
        if place.exists():  # nothing was moved yet, or all of it
            shutil.rmtree(aside, ignore_errors=True)
        else:
            os.replace(aside, place)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _unwritable(error: OSError, out: Path) -> UsageError:
    return UsageError(f"cannot write there: {error.strerror or error}", where=str(out))
