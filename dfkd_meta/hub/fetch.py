"""Which files a manifest makes us fetch, and the checks before any of them is downloaded."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dfkd_meta.errors import DfkdMetaError, HubError
from dfkd_meta.hub.client import Hub, RemoteFile
from dfkd_meta.hub.ids import is_repo_id
from dfkd_meta.progress import Progress
from dfkd_meta.sidecar import (
    CONFIG_FILE,
    MANIFEST_FILE,
    MAX_CONFIG_BYTES,
    TENSOR_FILE,
    Manifest,
    ValidationReport,
)
from dfkd_meta.sidecar.json_text import MAX_MANIFEST_BYTES
from dfkd_meta.sidecar.parse import parse_manifest
from dfkd_meta.sidecar.store import MAX_TENSOR_FILE_BYTES

MAX_WEIGHT_BYTES = 64 * 2**30  # the most that a manifest can make a stranger download, per file
DATA_SUFFIXES = (".safetensors", ".json")  # anything else could be a pickle or code

Listing = Mapping[str, RemoteFile] | None  # None: offline, the cache is all we have


@dataclass(frozen=True)
class Place:
    """Where files lie: a repository at a commit."""

    repo_id: str
    commit: str

    def __str__(self) -> str:
        return f"{self.repo_id}@{self.commit[:12]}"


@dataclass(frozen=True)
class Wanted:
    """A file to fetch, and what the manifest says it must be. ``limit`` is in bytes."""

    place: Place
    path: str
    limit: int
    size: int | None = None
    sha256: str | None = None
    optional: bool = False


class Fetch:
    """One pull in progress: what is fetched lands in ``folder``."""

    def __init__(self, hub: Hub, progress: Progress, folder: Path) -> None:
        self._hub = hub
        self._progress = progress
        self._folder = folder

    def all_of(self, place: Place) -> None:
        """The manifest, then what it names, each checked against the listing before download."""
        first = Wanted(place, MANIFEST_FILE, MAX_MANIFEST_BYTES)
        listing = self._listing(place, [MANIFEST_FILE])
        check(first, listing)
        self._file(first, listing)
        wanted = wanted_files(self._manifest(place), place)
        listings = {
            where: self._listing(where, [file.path for file in wanted if file.place == where])
            for where in {file.place for file in wanted}
        }
        for file in wanted:  # every refusal comes before the first large download
            check(file, listings[file.place])
        for file in wanted:
            self._file(file, listings[file.place])

    def _listing(self, place: Place, paths: list[str]) -> Listing:
        if self._hub.offline:
            return None
        return self._hub.listing(place.repo_id, place.commit, paths)

    def _manifest(self, place: Place) -> Manifest:
        report = ValidationReport()
        manifest = parse_manifest((self._folder / MANIFEST_FILE).read_bytes(), report)
        if manifest is None or not report.ok:
            raise invalid(place, report)
        return manifest

    def _file(self, wanted: Wanted, listing: Listing) -> None:
        target = self._folder / wanted.path
        if target.exists() or (listing is not None and wanted.path not in listing):
            return  # both repositories may hold a config.json: the sidecar's own comes first
        self._progress.step(f"downloading {wanted.path} from {wanted.place}")
        try:
            source = self._hub.download(wanted.place.repo_id, wanted.place.commit, wanted.path)
        except DfkdMetaError:
            if listing is None and wanted.optional:
                return
            raise
        # Copied, not linked: whoever edits the folder must not edit the cache all tools share.
        shutil.copyfile(source, target)


def wanted_files(manifest: Manifest, place: Place) -> list[Wanted]:
    """The files to fetch after the manifest. Raises HubError for one that must not be fetched."""
    weights_at = teacher_place(manifest, place)
    tensors = manifest.tensors
    wanted = [Wanted(place, TENSOR_FILE, MAX_TENSOR_FILE_BYTES, tensors.size, tensors.sha256)]
    for file in manifest.teacher.files:
        refuse_unsafe(file.path, str(place))
        wanted.append(Wanted(weights_at, file.path, MAX_WEIGHT_BYTES, file.size, file.sha256))
    if all(file.path != CONFIG_FILE for file in manifest.teacher.files):
        wanted += [
            Wanted(where, CONFIG_FILE, MAX_CONFIG_BYTES, optional=True)
            for where in dict.fromkeys((place, weights_at))
        ]
    return wanted


def teacher_place(manifest: Manifest, place: Place) -> Place:
    """Where the weights lie: beside the sidecar, or at the commit that the manifest pins."""
    teacher = manifest.teacher
    if teacher.repo_id is None or (teacher.repo_id == place.repo_id and teacher.revision is None):
        return place
    if not is_repo_id(teacher.repo_id) or teacher.revision is None:
        raise HubError(
            "the manifest says that the weights are in another repository, but not at which commit",
            where=f"{place}: /teacher",
            hint="the publisher must state teacher.repo_id and teacher.revision",
        )
    return Place(teacher.repo_id, teacher.revision)


def refuse_unsafe(path: str, where: str) -> None:
    """Nothing but plain names of data files is ever moved through the Hub. Raises HubError."""
    if Path(path).name != path or not path.endswith(DATA_SUFFIXES):
        raise HubError(
            f"the manifest names {path!r}, which is not a safetensors or JSON file",
            where=where,
            hint="the weights must be published as safetensors",
        )


def check(wanted: Wanted, listing: Listing) -> None:
    """Compare what the Hub lists with the limits and the manifest. Raises HubError."""
    if listing is None:
        return
    where = f"{wanted.place}: {wanted.path}"
    found = listing.get(wanted.path)
    if found is None:
        if wanted.optional:
            return
        raise (
            no_sidecar(wanted.place)
            if wanted.path == MANIFEST_FILE
            else HubError(
                "the repository lacks a file that the sidecar's manifest names",
                where=where,
                hint="tell the publisher to run 'dfkd-meta publish' again",
            )
        )
    if found.size > wanted.limit:
        raise HubError(
            f"the file has {found.size:,} bytes; at most {wanted.limit:,} are fetched",
            where=where,
            hint="fetch it by other means if you trust the publisher, and name the folder",
        )
    other_size = wanted.size is not None and wanted.size != found.size
    other_digest = None not in (wanted.sha256, found.sha256) and wanted.sha256 != found.sha256
    if other_size or other_digest:
        raise HubError(
            "the file is not the one the sidecar was made for: it changed after publication",
            where=where,
            hint="pull an older commit as user/repo@commit, or ask the publisher to export again",
        )


def no_sidecar(place: Place) -> HubError:
    return HubError(
        f"the repository has no sidecar ({MANIFEST_FILE})",
        where=str(place),
        hint="its publisher can add one with 'dfkd-meta export' and 'dfkd-meta publish'; "
        "models that have one carry the tag dfkd-meta",
    )


def invalid(place: Place, report: ValidationReport) -> HubError:
    """What arrived is not a valid sidecar: the first findings, with their codes."""
    shown = "; ".join(f"{i.code} {i.path or '/'}: {i.message}" for i in report.errors[:3])
    more = len(report.errors) - 3
    return HubError(
        f"the sidecar is not valid: {shown}" + (f" (and {more} more)" if more > 0 else ""),
        where=str(place),
        hint="pull an older commit as user/repo@commit, or tell the publisher",
    )
