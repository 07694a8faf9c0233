"""Bring a teacher and its sidecar here: one commit, nothing but named files, every digest checked.

The files are collected aside and moved into place only when the sidecar in them is valid, so a
reader never meets a half-written one.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dfkd_meta.errors import HubError, UsageError
from dfkd_meta.folders import real_path
from dfkd_meta.hub.client import Hub
from dfkd_meta.hub.fetch import Fetch, Place, invalid, wanted_files
from dfkd_meta.hub.ids import parse_id, parse_source
from dfkd_meta.progress import Progress, Silent
from dfkd_meta.sidecar import (
    CONFIG_FILE,
    MANIFEST_FILE,
    WEIGHTS_FILE,
    read_manifest,
    validate_sidecar,
)

MODEL_FILES = (CONFIG_FILE, WEIGHTS_FILE)


@dataclass(frozen=True)
class PulledSidecar:
    """A folder that holds teacher and sidecar; ``repo_id`` and ``commit`` say where it came from.

    Both are None for a local folder, which is not checked here: reading it does that.
    """

    folder: Path
    repo_id: str | None = None
    commit: str | None = None

    def files(self) -> list[Path]:
        """The files of teacher and sidecar that are here; what else is in the folder is not."""
        place = Place(self.repo_id or "", self.commit or "")
        wanted = wanted_files(read_manifest(self.folder), place)
        names = {MANIFEST_FILE, *(file.path for file in wanted)}
        return [self.folder / name for name in sorted(names) if (self.folder / name).is_file()]


def resolve_source(
    where: str,
    *,
    revision: str | None = None,
    token: str | None = None,
    cache_dir: Path | None = None,
    progress: Progress | None = None,
) -> PulledSidecar:
    """The folder for what a user typed: a folder as it is, a Hub id pulled and verified."""
    source = parse_source(where, revision=revision)
    if isinstance(source, Path):
        return PulledSidecar(source)
    if progress is not None and os.path.isdir(os.path.dirname(where)):
        progress.step(f"there is no folder {where} here, so it is taken for an id")
    return pull(str(source), token=token, cache_dir=cache_dir, progress=progress)


def pull(
    where: str,
    *,
    revision: str | None = None,
    token: str | None = None,
    cache_dir: Path | None = None,
    local_dir: Path | None = None,
    progress: Progress | None = None,
) -> PulledSidecar:
    """Download teacher and sidecar of ``user/repo[@revision]`` and check every digest.

    They land in ``local_dir``, or in a folder of the cache named after the commit. Only the
    manifest, the tensor file, the teacher files the manifest names and ``config.json`` are fetched.

    Raises UsageError (not an id), HubError (missing, refused, changed, not valid), NetworkError.
    """
    told = progress or Silent()
    wanted = parse_id(where, revision=revision)
    hub = Hub(token=token, cache_dir=cache_dir)
    told.step(f"resolving {wanted} at {hub.endpoint}")
    place = Place(wanted.repo_id, hub.resolve(wanted.repo_id, wanted.revision or "main"))
    folder = local_dir or hub.assets / place.repo_id.replace("/", "--") / place.commit
    if folder.exists() and not folder.is_dir():
        raise UsageError("there is a file in the place of the folder", where=str(folder))
    if local_dir is not None and not (folder / MANIFEST_FILE).exists():
        for name in MODEL_FILES:
            if (folder / name).exists():
                raise UsageError(
                    f"the folder holds another model: {name} would be replaced",
                    where=str(folder),
                    hint="name a folder that is empty, or one that was pulled before",
                )
    if local_dir is None and is_complete(folder):
        return PulledSidecar(folder, place.repo_id, place.commit)
    with staging_for(folder) as staging:
        Fetch(hub, told, staging).all_of(place)
        told.step("checking digests")
        report = validate_sidecar(staging)
        if not report.ok:
            raise invalid(place, report)
        move_files(staging, folder)
    return PulledSidecar(folder, place.repo_id, place.commit)


def is_complete(folder: Path) -> bool:
    """Whether an earlier pull left a valid sidecar with all the weights here."""
    if not (folder / MANIFEST_FILE).is_file():
        return False
    report = validate_sidecar(folder)
    weights_elsewhere = any(issue.code == "DM505" for issue in report)
    return report.ok and not weights_elsewhere


@contextmanager
def staging_for(folder: Path) -> Iterator[Path]:
    """A temporary folder on the same disk as ``folder``, gone afterwards."""
    place = real_path(folder)  # links and mount points lead to other disks
    nearest = next(path for path in (place, *place.parents) if path.is_dir())
    try:
        staging = tempfile.TemporaryDirectory(prefix=".dfkd-meta-", dir=nearest)
    except OSError as error:
        raise HubError(f"cannot write: {error.strerror}", where=str(nearest)) from error
    with staging as name:
        yield Path(name)


def move_files(staging: Path, folder: Path) -> None:
    """Rename every file into the folder, the manifest last: without it there is no sidecar.

    That of an earlier pull goes first, and with it the files of its model that have no successor.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / MANIFEST_FILE).exists():
            gone = [name for name in MODEL_FILES if not (staging / name).exists()]
            for name in (MANIFEST_FILE, *gone):
                (folder / name).unlink(missing_ok=True)
        for path in sorted(staging.iterdir(), key=lambda path: path.name == MANIFEST_FILE):
            os.replace(path, folder / path.name)
    except OSError as error:
        raise HubError(f"cannot write: {error.strerror}", where=str(folder)) from error
