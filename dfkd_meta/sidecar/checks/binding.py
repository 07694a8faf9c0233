"""The files that the manifest names: the tensor file and the teacher's, their sizes and digests."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

from dfkd_meta.sidecar.checks.evidence import Evidence, TensorData
from dfkd_meta.sidecar.files import inside, sha256_file
from dfkd_meta.sidecar.issues import pointer, short
from dfkd_meta.sidecar.manifest import MANIFEST_FILE, TENSOR_FILE, WeightFile
from dfkd_meta.sidecar.store import MAX_TENSOR_FILE_BYTES, read_header

ALLOWED_ENDINGS = (".safetensors", ".json")


def read_tensor_file(evidence: Evidence, folder: Path, data: bytes | None = None) -> None:
    """DM201 to DM214, DM501 to DM503. Sets ``evidence.own``; ``data`` replaces the file's bytes."""
    stated = evidence.manifest.tensors
    if data is None:
        data = _read_own(evidence, folder)
    if data is None:
        return
    if len(data) != stated.size:
        text = f"{len(data):,} bytes, not {stated.size:,}"
        evidence.add("DM502", "/tensors/size", text)
    elif hashlib.sha256(data).hexdigest() != stated.sha256:
        evidence.add("DM503", "/tensors/sha256", f"{TENSOR_FILE} is not the file described here")

    def found(code: str, message: str) -> None:
        evidence.add(code, TENSOR_FILE, message)

    header = read_header(io.BytesIO(data), len(data), found)
    if header is not None:
        evidence.own = TensorData(folder / TENSOR_FILE, header, data)


def _read_own(evidence: Evidence, folder: Path) -> bytes | None:
    """The whole tensor file; None when it is not there or its size alone refuses it."""
    path = inside(folder, TENSOR_FILE)
    if path is None:
        there = os.path.lexists(folder / TENSOR_FILE)
        code, text = (
            ("DM501", "is no plain file of this folder") if there else ("DM201", "is missing")
        )
        evidence.add(code, TENSOR_FILE, f"{TENSOR_FILE} {text}")
        return None
    try:
        size = path.stat().st_size
        if size > MAX_TENSOR_FILE_BYTES:
            evidence.add("DM202", TENSOR_FILE, f"{size:,} bytes")
            return None
        with path.open("rb") as file:
            return file.read(size)
    except OSError as error:
        evidence.add("DM201", TENSOR_FILE, f"cannot be read: {error.strerror}")
        return None


def read_teacher_files(evidence: Evidence, folder: Path) -> None:
    """DM504 to DM510. Sets ``evidence.teacher`` for the files that records point into."""
    pointed = {
        ref.file for record in evidence.manifest.statistics for ref in record.tensors.values()
    }
    seen: set[str] = set()
    digest = cache(sha256_file)  # a thousand links to one file do not read it a thousand times
    for number, file in enumerate(evidence.manifest.teacher.files):
        path = pointer("teacher", "files", number)
        if file.path in seen:
            evidence.add("DM508", path + "/path", f"{short(file.path)} is listed twice")
            continue
        seen.add(file.path)
        if not file.path.endswith(ALLOWED_ENDINGS):
            text = f"{short(file.path)} is not a kind of file allowed"
            evidence.add("DM509", path + "/path", text)
        elif file.path in (MANIFEST_FILE, TENSOR_FILE):
            evidence.add("DM509", path + "/path", f"{file.path} is a file of the sidecar")
        elif _check_teacher_file(evidence, folder, file, path, digest) and file.path in pointed:
            _read_teacher_header(evidence, folder / file.path)


def _check_teacher_file(
    evidence: Evidence, folder: Path, file: WeightFile, path: str, digest: Callable[[Path], str]
) -> bool:
    """Whether the file is here and is the one described."""
    here = folder / file.path
    plain = inside(folder, file.path)
    if plain is None:
        repo = evidence.manifest.teacher.repo_id
        if os.path.lexists(here):
            evidence.add("DM501", path + "/path", f"{file.path} is no plain file of this folder")
        elif repo is None:
            evidence.add("DM504", path + "/path", f"{file.path} is not in the folder")
        else:
            evidence.add("DM505", path + "/path", f"{file.path} is in {short(repo)}, not here")
        return False
    try:
        size = plain.stat().st_size
        if size != file.size:
            evidence.add("DM506", path + "/size", f"{size:,} bytes, not {file.size:,}")
            return False
        if digest(plain.resolve()) != file.sha256:
            evidence.add("DM507", path + "/sha256", f"{file.path} is not the file described here")
            return False
    except OSError as error:
        evidence.add("DM501", path + "/path", f"{file.path} cannot be read: {error.strerror}")
        return False
    return True


def _read_teacher_header(evidence: Evidence, path: Path) -> None:
    def found(code: str, message: str) -> None:
        evidence.add("DM510", path.name, f"{message} ({code})")

    try:
        with path.open("rb") as file:
            header = read_header(file, path.stat().st_size, found, teacher=True)
    except OSError as error:
        found("DM501", f"cannot be read: {error.strerror}")
        return
    if header is not None:
        evidence.teacher[path.name] = TensorData(path, header)
