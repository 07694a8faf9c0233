"""Take records out of a sidecar, without the data: what stays is as an export without them."""

from __future__ import annotations

import fnmatch
import shutil
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dfkd_meta.errors import UsageError
from dfkd_meta.folders import ASK_FIRST, new_folder, require_free
from dfkd_meta.sidecar.checks.profiles import honest_profile
from dfkd_meta.sidecar.files import model_files
from dfkd_meta.sidecar.folder import read_sidecar, write_sidecar
from dfkd_meta.sidecar.issues import SidecarError
from dfkd_meta.sidecar.manifest import Manifest, StatisticRecord


@dataclass(frozen=True)
class Redaction:
    """What a redaction took out (or, in a dry run, would): ids of records, in file order."""

    folder: Path
    profile: str
    removed: tuple[str, ...]
    kept: tuple[str, ...]


def redact_sidecar(
    folder: Path,
    out: Path,
    *,
    leave_out: Sequence[str] = (),
    only: Sequence[str] = (),
    overwrite: bool = False,
    dry_run: bool = False,
) -> Redaction:
    """Copy a published model into ``out``, its sidecar without some of its records.

    ``leave_out`` and ``only`` are patterns of record ids, as for an export; places and tracing
    strengths that no record needs any longer go, too, and a profile whose promise is broken becomes
    ``custom``. The same bytes come out as from an export of the same numbers without these records.
    ``out`` appears whole or not at all. Raises SidecarError (the sidecar in ``folder`` is invalid),
    UsageError (no pattern, one that matches no record, none is left, ``out`` is not free).
    """
    if not leave_out and not only:
        raise UsageError("there is nothing to take out", hint="name records to leave out or keep")
    sidecar = read_sidecar(folder)
    old = sidecar.manifest
    kept = chosen_records([r.id for r in old.statistics], leave_out=leave_out, only=only)
    records = [record for record in old.statistics if record.id in kept]
    document = _without(old, records)
    require_free(out, overwrite=overwrite, needed=[folder], hint=ASK_FIRST)
    if not dry_run:
        keys = {ref.key for r in records for ref in r.tensors.values() if ref.file is None}
        with new_folder(out) as scratch:
            for name in model_files(folder, old):
                shutil.copyfile(folder / name, scratch / name)
            tensors = {key: sidecar.tensors[key] for key in sorted(keys)}
            try:
                write_sidecar(scratch, document, tensors)
            except SidecarError as error:  # names a folder that nobody will see
                raise SidecarError(str(out), error.report, written=False) from error
    removed = tuple(record.id for record in old.statistics if record.id not in kept)
    return Redaction(out, document["profile"], removed, tuple(record.id for record in records))


def chosen_records(
    ids: Collection[str], *, leave_out: Sequence[str] = (), only: Sequence[str] = ()
) -> set[str]:
    """The ids that match a pattern of ``only`` (if there are any) and none of ``leave_out``.

    Raises UsageError for a pattern that matches none of them, and when nothing is left.
    """
    left_out = _matching("leave_out", leave_out, ids)
    kept = (_matching("only", only, ids) if only else set(ids)) - left_out
    if not kept:
        raise UsageError("leave_out and only leave no record to take")
    return kept


def _matching(key: str, patterns: Sequence[str], ids: Collection[str]) -> set[str]:
    found: set[str] = set()
    for pattern in patterns:
        matched = fnmatch.filter(ids, pattern)
        if not matched:
            raise UsageError(
                f"{key}: none of the records matches {pattern!r}",
                hint="ids: " + ", ".join(sorted(ids)),
            )
        found.update(matched)
    return found


def _without(old: Manifest, records: Sequence[StatisticRecord]) -> dict[str, Any]:
    """The blocks of a manifest with these records alone, but for ``tensors``."""
    # What the file did not say stays unsaid.
    document: dict[str, Any] = old.model_dump(mode="json", exclude_unset=True, exclude={"tensors"})
    kept = {record.id for record in records}
    used = {name for record in records for name in record.taps}
    taps = [tap for tap in old.taps if tap.id in used]
    document["statistics"] = [item for item in document["statistics"] if item["id"] in kept]
    document["taps"] = [item for item in document["taps"] if item["id"] in used]
    document["profile"] = honest_profile(old.profile, taps, records, len(old.described_classes))
    privacy = document["privacy"]
    strengths = privacy.get("tracing_strength", {})
    privacy["tracing_strength"] = {name: strengths[name] for name in strengths if name in kept}
    privacy["covers"] = [name for name in privacy.get("covers", ()) if name in kept]
    if not privacy["covers"]:  # nothing that noise was added to is left to claim it
        privacy["mechanism"] = "none"
        for name in ("epsilon", "delta"):
            privacy.pop(name, None)
    return document
