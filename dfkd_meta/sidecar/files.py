"""Files of a sidecar folder: plain names only, and digests."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

from dfkd_meta.errors import DfkdMetaError
from dfkd_meta.sidecar.manifest import MANIFEST_FILE, Manifest

BLOCK = 2**20
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
MAX_CONFIG_BYTES = 4 * 2**20
BESIDE = (CONFIG_FILE, "README.md")  # of a published model, not of its sidecar


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


def model_files(folder: Path, manifest: Manifest) -> list[str]:
    """The names of the files of a published model that are there, besides those of its sidecar."""
    files = [file.path for file in manifest.teacher.files]
    return [name for name in dict.fromkeys((*files, *BESIDE)) if inside(folder, name) is not None]


def sidecar_folder(path: Path) -> Path:
    """The folder that a user means by a folder or by the ``dfkd_meta.json`` in it.

    Raises DfkdMetaError for anything else.
    """
    # os.path, not Path: the latter raises for names too long or folders that may not be searched.
    if os.path.isdir(path):
        return path
    if path.name == MANIFEST_FILE and os.path.isfile(path):
        return path.parent
    missing = not os.path.lexists(path)
    raise DfkdMetaError(
        "there is no such file or folder" if missing else "this is not a sidecar",
        where=str(path),
        hint=f"name a folder that holds {MANIFEST_FILE}, or that file",
    )
