"""Bring a teacher and its sidecar here: one commit, nothing but named files, every digest checked.

The files are collected in a folder of their own that appears only when the sidecar in it is valid,
so a reader never sees a half-written one.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dfkd_meta.errors import HubError, UsageError
from dfkd_meta.hub.client import Hub, RemoteFile
from dfkd_meta.hub.ids import HubId, parse_id, parse_source
from dfkd_meta.progress import Progress, Silent
from dfkd_meta.sidecar import (
    MANIFEST_FILE,
    MAX_MANIFEST_BYTES,
    MAX_TENSOR_FILE_BYTES,
    TENSOR_FILE,
    Manifest,
    SidecarError,
    read_manifest,
    validate_sidecar,
)

CONFIG_FILE = "config.json"
MAX_CONFIG_BYTES = 4 * 2**20
MAX_WEIGHT_BYTES = 64 * 2**30  # a bound for what a manifest can make a stranger download
DATA_SUFFIXES = (".safetensors", ".json")  # anything else could be a pickle or code


@dataclass(frozen=True)
class PulledSidecar:
    """A folder with a valid sidecar; ``repo_id`` and ``commit`` say where it came from.

    Both are None for a local folder, which is not checked here: reading it does that.
    """

    folder: Path
    repo_id: str | None = None
    commit: str | None = None


@dataclass(frozen=True)
class Place:
    """Where a file lies: a repository at a commit."""

    repo_id: str
    commit: str

    def __str__(self) -> str:
        return f"{self.repo_id}@{self.commit[:12]}"


@dataclass(frozen=True)
class Wanted:
    """A file the manifest names, and what it must be."""

    place: Place
    path: str
    limit: int
    size: int | None = None
    sha256: str | None = None
    optional: bool = False


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

    Raises UsageError (not an id), HubError, NetworkError, SidecarError (what arrived is not valid).
    """
    told = progress or Silent()
    wanted = parse_id(where, revision=revision)
    hub = Hub(token=token, cache_dir=cache_dir)
    told.step(f"resolving {wanted} at {hub.endpoint}")
    place = Place(wanted.repo_id, hub.resolve(wanted.repo_id, wanted.revision or "main"))
    cached = hub.assets / wanted.repo_id.replace("/", "--") / place.commit
    if local_dir is None and validate_sidecar(cached).ok:
        return PulledSidecar(cached, place.repo_id, place.commit)
    folder = _checked_target(local_dir) if local_dir is not None else cached
    with _staging(folder) as staging:
        _Fetch(hub, told, staging).all_of(place)
        told.step("checking digests")
        report = validate_sidecar(staging)
        if not report.ok:
            raise SidecarError(str(place), report)
        _move(staging, folder)
    return PulledSidecar(folder, place.repo_id, place.commit)


class _Fetch:
    """One pull in progress: what is fetched lands in ``folder``."""

    def __init__(self, hub: Hub, progress: Progress, folder: Path) -> None:
        self.hub = hub
        self.progress = progress
        self.folder = folder

    def all_of(self, place: Place) -> None:
        """The manifest, then what it names, each checked against the listing before download."""
        head = self.listing(place, [MANIFEST_FILE, TENSOR_FILE, CONFIG_FILE])
        if head is not None and MANIFEST_FILE not in head:
            raise no_sidecar(place)
        self.file(Wanted(place, MANIFEST_FILE, MAX_MANIFEST_BYTES), head)
        manifest = read_manifest(self.folder)
        wanted = wanted_files(manifest, place)
        listings = {place: head}
        for other in {file.place for file in wanted}:
            paths = [file.path for file in wanted if file.place == other]
            listings[other] = self.listing(other, paths)
        for file in wanted:  # all refusals come before the first large download
            check(file, listings[file.place])
        for file in wanted:
            self.file(file, listings[file.place])

    def listing(self, place: Place, paths: list[str]) -> Mapping[str, RemoteFile] | None:
        """What the commit holds of these paths; unknown (None) offline: the cache is all we have."""
        if self.hub.offline:
            return None
        return self.hub.listing(place.repo_id, place.commit, paths)

    def file(self, wanted: Wanted, listing: Mapping[str, RemoteFile] | None) -> None:
        check(wanted, listing)
        target = self.folder / wanted.path
        if target.exists() or (listing is not None and wanted.path not in listing):
            return  # fetched from a repository named before, or optional and not there
        try:
            self.progress.step(f"downloading {wanted.path} from {wanted.place}")
            source = self.hub.download(wanted.place.repo_id, wanted.place.commit, wanted.path)
        except HubError, NetworkError:
            if not wanted.optional:
                raise
            return
        # Copied, not linked: whoever edits the folder must not edit the shared cache.
        shutil.copyfile(source, target)
