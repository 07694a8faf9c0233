"""A sidecar folder: read it whole or not at all, write it whole or not at all."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dfkd_meta.errors import StatisticsError
from dfkd_meta.folders import write_whole
from dfkd_meta.sidecar.checks.evidence import TensorData
from dfkd_meta.sidecar.issues import SidecarError, ValidationReport
from dfkd_meta.sidecar.json_text import dump_manifest
from dfkd_meta.sidecar.kinds import KINDS
from dfkd_meta.sidecar.manifest import (
    FORMAT,
    FORMAT_VERSION,
    MANIFEST_FILE,
    TENSOR_FILE,
    Manifest,
    StatisticRecord,
    Tap,
    TensorRef,
)
from dfkd_meta.sidecar.parse import parse_manifest
from dfkd_meta.sidecar.validation import examine, read_manifest_bytes

if TYPE_CHECKING:
    from dfkd_meta.sidecar.arrays import Array


@dataclass(frozen=True)
class Sidecar:
    """A sidecar that passed validation.

    ``tensors`` holds the arrays of ``dfkd_meta.safetensors`` by key, read-only, as stored.
    """

    folder: Path
    manifest: Manifest
    tensors: Mapping[str, Array]
    teacher_files: Mapping[str, TensorData] = field(default_factory=dict, repr=False)

    def find(
        self,
        kind: str,
        *,
        tap: str | None = None,
        scope: str | None = None,
        reduction: str | None = None,
    ) -> list[StatisticRecord]:
        """Records of a kind this version knows, in file order; None matches anything.

        Of the per-class ones only those of every described class: see ``partial``.
        """
        known = KINDS.get(kind)
        return [
            record
            for record in self.manifest.statistics
            if record.kind == kind
            and (known is None or record.kind_version == known.version)
            and (tap is None or tap in record.taps)
            and scope in (None, record.scope)
            and reduction in (None, record.reduction)
            and not self._is_partial(record)
        ]

    @property
    def partial(self) -> list[StatisticRecord]:
        """Records of some described classes and not of others: no input can aim at them."""
        return [record for record in self.manifest.statistics if self._is_partial(record)]

    def _is_partial(self, record: StatisticRecord) -> bool:
        return record.classes is not None and record.classes != self.classes

    @cached_property
    def classes(self) -> list[int]:
        """The classes that the sidecar describes: see ``Manifest.described_classes``."""
        return self.manifest.described_classes

    def array(self, record: StatisticRecord, role: str) -> Array:
        """float32 copy of one role, in the record's axes; follows pointers into teacher files.

        Raises StatisticsError when the record has no such role, or points into a file that is
        not in the folder.
        """
        from dfkd_meta.sidecar.arrays import float32

        ref = record.tensors.get(role)
        if ref is None:
            raise StatisticsError(
                f"the record holds no {role!r}",
                where=f"record {record.id!r}",
                hint="it holds: " + (", ".join(sorted(record.tensors)) or "nothing"),
            )
        if ref.file is None:
            return float32(self.tensors[ref.key])
        source = self.teacher_files.get(ref.file)
        if source is None:
            raise StatisticsError(
                f"the record points into {ref.file}, which is not in the folder",
                where=f"{self.folder}: record {record.id!r}",
                hint="put the teacher's files beside the sidecar",
            )
        return float32(source.read(source.header.entries[ref.key]))

    def tap(self, tap_id: str) -> Tap:
        """The tap of that id. Raises StatisticsError."""
        for tap in self.manifest.taps:
            if tap.id == tap_id:
                return tap
        raise StatisticsError(f"the sidecar has no tap {tap_id!r}", where=str(self.folder))


def read_sidecar(folder: Path) -> Sidecar:
    """Validate a folder and read it. Raises SidecarError, which holds the whole report."""
    report = ValidationReport()
    evidence = examine(folder, report)
    if evidence is None or evidence.own is None or not report.ok:
        raise SidecarError(str(folder), report)
    own = evidence.own
    tensors = {name: own.read(entry) for name, entry in own.header.entries.items()}
    return Sidecar(folder, evidence.manifest, tensors, evidence.teacher)


def read_manifest(folder: Path) -> Manifest:
    """The manifest alone (schema checked, nothing else). Raises SidecarError."""
    report = ValidationReport()
    data = read_manifest_bytes(folder, report)
    manifest = None if data is None else parse_manifest(data, report)
    if manifest is None:
        raise SidecarError(str(folder), report)
    return manifest


def pack_record(
    record: StatisticRecord, arrays: Mapping[str, Array]
) -> tuple[StatisticRecord, dict[str, Array]]:
    """Give a record its tensors: keys ``<record id>/<role>``, axes of its kind; float32, large ones
    float16 where their scale allows.

    ``arrays``: role to values in the kind's axes. Returns the record with its references (those it
    already had stay), and the arrays by key. Raises StatisticsError on an unknown kind or role, or
    on a wrong number of axes.
    """
    from dfkd_meta.sidecar.arrays import float16_or_32, float32

    kind = KINDS.get(record.kind)
    refs, packed = dict(record.tensors), {}
    for role, values in arrays.items():
        rule = kind.roles.get(role) if kind else None
        if rule is None or values.ndim != len(rule.axes.split()):
            wanted = f"the axes '{rule.axes}'" if rule else "no such role"
            raise StatisticsError(
                f"{role!r} of shape {values.shape}: {record.kind} has {wanted}",
                where=f"record {record.id!r}",
            )
        key = f"{record.id}/{role}"
        packed[key] = float16_or_32(values) if rule.large else float32(values)
        refs[role] = TensorRef(
            key=key,
            dtype="F16" if packed[key].itemsize == 2 else "F32",
            shape=list(packed[key].shape),
            axes=rule.axes,
        )
    return record.model_copy(update={"tensors": refs}), packed


def write_sidecar(
    folder: Path, manifest: Mapping[str, Any], tensors: Mapping[str, Array]
) -> Manifest:
    """Write ``dfkd_meta.json`` and ``dfkd_meta.safetensors``; equal content gives equal bytes.

    ``manifest`` is every block but ``tensors``, as JSON values or models. Both files are validated
    (against the teacher files in the folder too) before either is put in place. Raises
    SidecarError; then the folder is as it was.
    """
    from dfkd_meta.sidecar.arrays import dump_tensors

    tensor_bytes = dump_tensors(tensors)
    digest = hashlib.sha256(tensor_bytes).hexdigest()
    document = {name: _plain(value) for name, value in manifest.items()}
    document["tensors"] = {"file": TENSOR_FILE, "size": len(tensor_bytes), "sha256": digest}
    document.setdefault("format", FORMAT)
    document.setdefault("format_version", FORMAT_VERSION)
    report = ValidationReport()
    try:
        manifest_bytes = dump_manifest(document)
    except ValueError as error:
        report.add("DM105", "", f"the manifest cannot be written: {error}")
        raise SidecarError(str(folder), report, written=False) from error
    evidence = examine(folder, report, manifest_bytes, tensor_bytes)
    if evidence is None or not report.ok:
        raise SidecarError(str(folder), report, written=False)
    # The manifest goes last: it is what readers look for, and it names the digest of the other.
    write_whole(folder, {TENSOR_FILE: tensor_bytes, MANIFEST_FILE: manifest_bytes})
    return evidence.manifest


def _plain(value: Any) -> Any:
    """JSON values of models, or of lists and dicts of models; absent options are left out."""
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json", exclude_none=True)
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
