"""Files of a sidecar folder: plain names only, digests, and writes that are whole or not there."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

BLOCK = 2**20


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file, read in blocks of 1 MiB."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def inside(folder: Path, name: str) -> Path | None:
    """The path of a plain file of that name in the folder; None if it is something else.

    A symbolic link must end inside the folder. One exception: the cache of the Hugging Face Hub,
    whose ``snapshots/<commit>/`` folders link into ``blobs/`` beside them.
    """
    path = folder / name
    try:
        target = path.resolve(strict=True)
        home = folder.resolve(strict=True)
        if not stat.S_ISREG(target.stat().st_mode):
            return None
    except (OSError, RuntimeError, ValueError):
        return None
    if target.is_relative_to(home):
        return path
    blobs = home.parent.parent / "blobs"
    return path if home.parent.name == "snapshots" and target.parent == blobs else None


def write_whole(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files so that each is there whole or not at all, in the order given."""
    with staged(folder, files) as replace:
        for temporary, name in replace:
            os.replace(temporary, folder / name)


@contextmanager
def staged(folder: Path, files: Mapping[str, bytes]) -> Iterator[list[tuple[Path, str]]]:
    """Write every file under a temporary name first; what is not renamed is removed again."""
    made: list[tuple[Path, str]] = []
    try:
        for name, data in files.items():
            handle, temporary = tempfile.mkstemp(prefix=f".{name}.", dir=folder)
            made.append((Path(temporary), name))
            with os.fdopen(handle, "wb") as file:
                os.chmod(temporary, 0o644)  # mkstemp gives 0600; a published file is readable
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        yield made
    finally:
        for path, _ in made:
            path.unlink(missing_ok=True)
