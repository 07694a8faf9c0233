"""Validation of a sidecar folder, or of two files about to be written into one."""

from __future__ import annotations

import os
from pathlib import Path

from dfkd_meta.sidecar.checks.binding import read_teacher_files, read_tensor_file
from dfkd_meta.sidecar.checks.evidence import Evidence
from dfkd_meta.sidecar.files import inside
from dfkd_meta.sidecar.issues import ValidationReport
from dfkd_meta.sidecar.json_text import MAX_MANIFEST_BYTES
from dfkd_meta.sidecar.manifest import MANIFEST_FILE
from dfkd_meta.sidecar.parse import parse_manifest


def validate_sidecar(folder: Path, *, strict: bool = False) -> ValidationReport:
    """Everything that is wrong with a sidecar; never raises for a bad one.

    With ``strict`` the report is not ``ok`` if it holds warnings.
    """
    report = ValidationReport(strict=strict)
    examine(folder, report)
    return report


def examine(
    folder: Path,
    report: ValidationReport,
    manifest_bytes: bytes | None = None,
    tensor_bytes: bytes | None = None,
) -> Evidence | None:
    """Run every check on the folder; bytes given stand for files that are not written yet.

    None when there is no manifest to go by.
    """
    data = read_manifest_bytes(folder, report) if manifest_bytes is None else manifest_bytes
    manifest = None if data is None else parse_manifest(data, report)
    if manifest is None:
        return None
    from dfkd_meta.sidecar.checks.run import run_checks  # needs numpy

    evidence = Evidence(manifest, report)
    read_tensor_file(evidence, folder, tensor_bytes)
    read_teacher_files(evidence, folder)
    run_checks(evidence)
    return evidence


def read_manifest_bytes(folder: Path, report: ValidationReport) -> bytes | None:
    """The bytes of ``dfkd_meta.json``, never more than the cap."""
    path = inside(folder, MANIFEST_FILE)
    if path is None:
        linked = os.path.lexists(folder / MANIFEST_FILE)
        text = "is no plain file of this folder" if linked else "is missing"
        report.add("DM501" if linked else "DM101", MANIFEST_FILE, f"{MANIFEST_FILE} {text}")
        return None
    try:
        with path.open("rb") as file:
            return file.read(MAX_MANIFEST_BYTES + 1)
    except OSError as error:
        report.add("DM101", MANIFEST_FILE, f"{MANIFEST_FILE} cannot be read: {error.strerror}")
        return None
