"""Folders and files that appear whole or not at all."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from dfkd_meta.errors import DfkdMetaError, UsageError

ASK_FIRST = "choose another folder, or overwrite=True"  # what a program can do
OURS = ("config.json", "dfkd_meta.json")  # what a folder that may be replaced has one of


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
    ``overwrite`` or without any of ``OURS``, the current folder, the user's own or one above them,
    a mount point, holds one of the files or folders ``needed`` for the work, lies where no folder
    can be made, or has a name to which ``beside`` (what the name of a file beside it will end in)
    cannot be added.
    """
    place = real_path(out)
    try:
        for longer in (place, place.parent / f"{place.name}{beside}"):
            with suppress(FileNotFoundError):  # but not that a name is too long
                longer.stat()
        there = place.exists()
        if there and not place.is_dir():
            raise UsageError("the output folder is a file", where=str(out))
        for what, path, instead in _spared(needed):
            if real_path(path).is_relative_to(place):
                raise UsageError(
                    f"the output folder would replace {what}", where=str(out), hint=instead
                )
        if there and not overwrite and any(place.iterdir()):
            raise UsageError("the output folder is not empty", where=str(out), hint=hint)
        if os.path.ismount(place):
            raise UsageError(
                "the output folder is a mount point, which nothing can take the place of",
                where=str(out),
                hint="name a folder inside it",
            )
        if there and any(place.iterdir()) and not any((place / name).is_file() for name in OURS):
            raise UsageError(
                "the output folder holds neither a model nor a sidecar that could be replaced",
                where=str(out),
                hint="choose another --out, or delete that folder yourself",
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
            _swap(scratch, place)
        except OSError as error:  # a full disk, above all
            reason = error.strerror or error
            raise DfkdMetaError(f"cannot write: {reason}", where=str(out)) from error


def write_whole(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files so that each is there whole or not at all, in the order given.

    All are written under temporary names first, so that a full disk changes nothing.
    Raises OSError.
    """
    made: list[Path] = []
    try:
        for name, data in files.items():
            if (folder / name).is_dir():
                raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), str(folder / name))
            made.append(_unused(folder))
            with made[-1].open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        for temporary, name in zip(made, files, strict=True):
            os.replace(temporary, folder / name)
    finally:
        for temporary in made:
            temporary.unlink(missing_ok=True)


def _unused(folder: Path) -> Path:
    """A name that nothing has: a file or folder made there is open to whom the umask says.

    It is short, so that no name which the file system takes is ever made too long.
    """
    return folder / f".dfkd-meta.{secrets.token_hex(8)}"


@contextmanager
def _scratch_for(place: Path) -> Iterator[Path]:
    """A folder beside ``place``, gone afterwards with every folder made above it that is empty."""
    made: list[Path] = []
    try:
        _make(place.parent, made)
        scratch = _unused(place.parent)
        scratch.mkdir()
        try:
            yield scratch
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    finally:
        _remove(made)


def _spared(needed: Iterable[Path | str | None]) -> Iterator[tuple[str, Path, str]]:
    """What no folder may take the place of: in words, where it is, and what to do instead."""
    inside = "name a folder inside it, or one elsewhere"
    yield "the folder you are in", Path.cwd(), inside
    home = os.path.expanduser("~")
    if home != "~":  # a user without one
        yield "your own folder", Path(home), inside
    for name in needed:
        if name is not None and os.path.exists(name):
            yield f"what is needed: {name}", Path(name), "choose another --out"


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
    aside = _unused(place.parent)
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
