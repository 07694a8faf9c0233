"""What a sidecar holds, as plain facts: the same for tables and for ``--json``."""

from __future__ import annotations

import math
from typing import Any

from dfkd_meta.sidecar.manifest import Manifest, StatisticRecord, TensorRef
from dfkd_meta.sidecar.store import OWN_BITS


def summarize(manifest: Manifest) -> dict[str, Any]:
    """The blocks of the manifest, with the size in bytes of every tensor and record."""
    whole = manifest.model_dump(mode="json", exclude_none=True)
    kept = ("format_version", "profile", "teacher", "inputs", "outputs", "taps", "privacy")
    facts = {name: whole[name] for name in (*kept, "provenance", "tensors")}
    if manifest.evaluation is not None:
        facts["evaluation"] = whole["evaluation"]
    return {**facts, "statistics": [_record(record) for record in manifest.statistics]}


def tensor_bytes(ref: TensorRef) -> int:
    """Bytes of a tensor as stored, by its stated shape and dtype."""
    return math.prod(ref.shape) * OWN_BITS[ref.dtype] // 8


def record_bytes(record: StatisticRecord) -> int:
    """Bytes of a record's own tensors: a pointed one is in the teacher's weights already."""
    return sum(tensor_bytes(ref) for ref in record.tensors.values() if ref.file is None)


def bytes_text(count: int) -> str:
    """``123`` -> "123 bytes", ``45678`` -> "45.7 KB", ``8.1e6`` -> "8.10 MB" (powers of 1,000)."""
    if count < 1_000:
        return f"{count} bytes"
    if count < 1_000_000:
        return f"{count / 1e3:.1f} KB"
    return f"{count / 1e6:.2f} MB" if count < 1_000_000_000 else f"{count / 1e9:.2f} GB"


def _record(record: StatisticRecord) -> dict[str, Any]:
    tensors = {
        role: {
            "shape": ref.shape,
            "axes": ref.axes,
            "dtype": ref.dtype,
            "bytes": tensor_bytes(ref),
            "file": ref.file,
        }
        for role, ref in record.tensors.items()
    }
    smallest = min(record.count) if record.count else None
    return {
        "id": record.id,
        "kind": record.kind,
        "taps": record.taps,
        "reduction": record.reduction,
        "scope": record.scope,
        "groups": 1 if record.scope == "global" else len(record.classes or ()),
        "smallest_count": smallest,
        "tensors": tensors,
        "bytes": record_bytes(record),
    }
