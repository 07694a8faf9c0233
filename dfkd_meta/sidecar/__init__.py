"""The sidecar standard: manifest, tensor file, validation, migrations. Never imports torch."""

from __future__ import annotations

from dfkd_meta.sidecar.files import CONFIG_FILE, MAX_CONFIG_BYTES, WEIGHTS_FILE, sha256_file
from dfkd_meta.sidecar.folder import (
    Sidecar,
    pack_record,
    read_manifest,
    read_sidecar,
    write_sidecar,
)
from dfkd_meta.sidecar.issues import Issue, SidecarError, ValidationReport
from dfkd_meta.sidecar.json_text import MAX_MANIFEST_BYTES
from dfkd_meta.sidecar.kinds import KINDS, Kind, Role
from dfkd_meta.sidecar.manifest import (
    FORMAT,
    FORMAT_VERSION,
    MANIFEST_FILE,
    TENSOR_FILE,
    DatasetRef,
    Evaluation,
    InputSpec,
    Manifest,
    OutputSpec,
    Privacy,
    Provenance,
    StatisticRecord,
    Tap,
    TeacherRef,
    TensorFile,
    TensorRef,
    WeightFile,
    channel_axis,
)
from dfkd_meta.sidecar.redaction import redact_sidecar
from dfkd_meta.sidecar.store import MAX_TENSOR_FILE_BYTES
from dfkd_meta.sidecar.summary import bytes_text
from dfkd_meta.sidecar.validation import validate_sidecar

__all__ = [
    "CONFIG_FILE",
    "FORMAT",
    "FORMAT_VERSION",
    "KINDS",
    "MANIFEST_FILE",
    "MAX_CONFIG_BYTES",
    "MAX_MANIFEST_BYTES",
    "MAX_TENSOR_FILE_BYTES",
    "TENSOR_FILE",
    "WEIGHTS_FILE",
    "DatasetRef",
    "Evaluation",
    "InputSpec",
    "Issue",
    "Kind",
    "Manifest",
    "OutputSpec",
    "Privacy",
    "Provenance",
    "Role",
    "Sidecar",
    "SidecarError",
    "StatisticRecord",
    "Tap",
    "TeacherRef",
    "TensorFile",
    "TensorRef",
    "ValidationReport",
    "WeightFile",
    "bytes_text",
    "channel_axis",
    "pack_record",
    "read_manifest",
    "read_sidecar",
    "redact_sidecar",
    "sha256_file",
    "validate_sidecar",
    "write_sidecar",
]
