"""Write a sidecar of an older format in the current one; tensors and teacher stay as they are."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from dfkd_meta.errors import DfkdMetaError
from dfkd_meta.folders import new_folder, real_path, require_free, write_whole
from dfkd_meta.sidecar.checks.evidence import Evidence
from dfkd_meta.sidecar.files import model_files
from dfkd_meta.sidecar.issues import SidecarError, ValidationReport
from dfkd_meta.sidecar.json_text import dump_manifest, parse_json
from dfkd_meta.sidecar.manifest import MANIFEST_FILE, TENSOR_FILE
from dfkd_meta.sidecar.migrations import stated_version
from dfkd_meta.sidecar.parse import parse_document
from dfkd_meta.sidecar.validation import examine, read_manifest_bytes


@dataclass(frozen=True)
class Upgrade:
    """What a migration did (or, in a dry run, would do). ``written`` names the files, in order."""

    old: str
    new: str
    folder: Path
    written: tuple[str, ...]


def upgrade_sidecar(folder: Path, out: Path | None = None, *, dry_run: bool = False) -> Upgrade:
    """Migrate a folder in place, or into ``out`` with its tensor file and teacher files.

    The result is validated before anything is written, ``out`` (new or empty) appears whole or not
    at all; of the current format nothing is written in place. Raises SidecarError, UsageError
    (``out`` holds something), DfkdMetaError (cannot write).
    """
    report = ValidationReport()
    data = read_manifest_bytes(folder, report)
    document = None if data is None else parse_document(data, report)
    if data is None or document is None:
        raise SidecarError(str(folder), report)
    old, new = str(stated_version(parse_json(data))), str(stated_version(document))
    in_place = out is None or real_path(out) == real_path(folder)
    if in_place and old == new:
        return Upgrade(old, new, folder, ())
    migrated = dump_manifest(document)
    fresh = ValidationReport()
    evidence = examine(folder, fresh, migrated)
    if evidence is None or not fresh.ok:
        raise SidecarError(str(folder), fresh)
    if out is not None and not in_place:
        return Upgrade(old, new, out, _copy(folder, out, evidence, migrated, dry_run))
    try:
        if not dry_run:
            write_whole(folder, {MANIFEST_FILE: migrated})
    except OSError as error:
        raise DfkdMetaError(f"cannot write: {error.strerror}", where=str(folder)) from error
    return Upgrade(old, new, folder, (MANIFEST_FILE,))


def _copy(
    folder: Path, out: Path, evidence: Evidence, migrated: bytes, dry_run: bool
) -> tuple[str, ...]:
    require_free(out, hint="choose another --out")
    teacher = model_files(folder, evidence.manifest)
    own = {TENSOR_FILE: evidence.own.data} if evidence.own and evidence.own.data else {}
    if not dry_run:
        with new_folder(out) as scratch:
            for name in teacher:
                shutil.copyfile(folder / name, scratch / name)
            write_whole(scratch, {**own, MANIFEST_FILE: migrated})
    return (*teacher, *own, MANIFEST_FILE)
