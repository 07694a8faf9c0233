"""Small sidecars to start from in tests and conformance cases; no torch, no random numbers.

The imagined teacher: ``input`` (1x2x2) -> ``conv`` (2 channels, 2x1) -> ``bn`` -> ... -> ``conv2``
(2 channels, 2x1, behind a nonlinearity) -> ``fc`` (3 features -> 2 classes).
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dfkd_meta.sidecar import KINDS, MANIFEST_FILE, TENSOR_FILE
from dfkd_meta.sidecar.arrays import dump_tensors
from dfkd_meta.sidecar.json_text import dump_json

SAMPLES, COUNTS = 60, [40, 20]
WEIGHTS = dump_tensors(
    {
        "bn.running_mean": np.array([0.5, -0.5], np.float32),
        "bn.running_var": np.array([1.0, 2.0], np.float32),
        "fc.weight": np.ones((2, 3), np.float32),
    }
)
STORED = {"float16": "F16", "float32": "F32", "float64": "F64", "int64": "I64"}


@dataclass
class Example:
    """A sidecar as parts that a case may bend before they are written.

    ``raw_manifest`` and ``raw_tensors`` replace what would be written; ``seal`` renews size and
    digest of the tensor file; ``files`` are teacher files and others.
    """

    document: dict[str, Any]
    tensors: dict[str, np.ndarray] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=lambda: {"model.safetensors": WEIGHTS})
    raw_manifest: bytes | None = None
    raw_tensors: bytes | None = None
    without: tuple[str, ...] = ()

    def add(self, record: dict[str, Any], **arrays: Any) -> Example:
        """Append a record with its tensors (float32 unless the array says otherwise)."""
        roles = KINDS[record["kind"]].roles
        refs = dict(record.get("tensors", {}))
        for role, values in arrays.items():
            array = np.asarray(values, None if isinstance(values, np.ndarray) else np.float32)
            key = f"{record['id']}/{role}"
            self.tensors[key] = array
            refs[role] = {
                "axes": roles[role].axes,
                "dtype": STORED[array.dtype.name],
                "key": key,
                "shape": list(array.shape),
            }
        self.document["statistics"].append({**record, "tensors": refs})
        return self

    def seal(self) -> Example:
        """State size and digest of the tensor file as it will be written."""
        data = self.tensor_bytes()
        stated = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        self.document["tensors"] = {"file": TENSOR_FILE, **stated}
        return self

    def tensor_bytes(self) -> bytes:
        return dump_tensors(self.tensors) if self.raw_tensors is None else self.raw_tensors

    def manifest_bytes(self) -> bytes:
        return dump_json(self.document) if self.raw_manifest is None else self.raw_manifest

    def write(self, folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        own = {MANIFEST_FILE: self.manifest_bytes(), TENSOR_FILE: self.tensor_bytes()}
        for name, data in {**self.files, **own}.items():
            if name not in self.without:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(data)
        return folder


def tap(
    name: str, shape: list[int], *, linear: bool = False, side: str = "output"
) -> dict[str, Any]:
    axes = {1: ["f"], 2: ["t", "f"], 3: ["c", "h", "w"]}[len(shape)]
    module = "" if name in ("input", "logits") else name
    place = {"id": name, "module": module, "side": side, "call": 0}
    return {**place, "axes": axes, "shape": shape, "linear_in_input": linear}


def empty(profile: str = "custom") -> Example:
    """A sidecar without any statistic."""
    weights = {"path": "model.safetensors", "size": len(WEIGHTS)}
    weights["sha256"] = hashlib.sha256(WEIGHTS).hexdigest()
    document = {
        "format": "dfkd-meta",
        "format_version": "1.0",
        "profile": profile,
        "teacher": {
            "source": "builtin",
            "architecture": "example",
            "files": [weights],
            "parameters": 10,
        },
        "inputs": {
            "shape": [1, 2, 2],
            "axes": ["c", "h", "w"],
            "value_range": [0.0, 1.0],
            "mean": [0.5],
            "std": [0.25],
            "color_order": "gray",
        },
        "outputs": {"num_classes": 2},
        "taps": [
            tap("input", [1, 2, 2], linear=True, side="input"),
            tap("conv", [2, 2, 1], linear=True),
            tap("conv2", [2, 2, 1]),
            tap("fc", [3], side="input"),
            tap("logits", [2]),
        ],
        "statistics": [],
        "provenance": {
            "tool": "dfkd-meta",
            "tool_version": "0.1.0",
            "created": "2026-01-01T00:00:00Z",
            "samples": SAMPLES,
            "class_counts": COUNTS,
            "preprocessing_sha256": "0" * 64,
        },
        "privacy": {"min_group_size": 11, "mechanism": "none", "tracing_strength": {}},
    }
    return Example(copy.deepcopy(document))


def record(
    name: str, kind: str, tap_id: str | None, reduction: str | None, **rest: Any
) -> dict[str, Any]:
    """A global record of all samples; ``classes=True`` makes it per class."""
    by_class = rest.pop("classes", False)
    made: dict[str, Any] = {"id": name, "kind": kind, "kind_version": 1}
    made["scope"] = "per_class" if by_class else "global"
    made["taps"] = [] if tap_id is None else [tap_id]
    if by_class:
        made["classes"] = [0, 1]
    if KINDS[kind].needs_count:
        made["count"] = COUNTS if by_class else [SAMPLES]
    if reduction is not None:
        made["reduction"] = reduction
    return copy.deepcopy({**made, **rest})


def traced(example: Example, **features: int) -> Example:
    """State the tracing strength of records by their number of features, and seal."""
    for item in example.document["statistics"]:
        if item["id"] in features:
            modes = example.tensors.get(f"{item['id']}/mode_count")
            counts = item["count"] if modes is None else modes[modes > 0]
            strength = math.sqrt(features[item["id"]] / min(counts))
            example.document["privacy"]["tracing_strength"][item["id"]] = round(strength, 6)
    return example.seal()


def small() -> Example:
    """One record: global channel-wise moments at ``conv2``. No issue at all."""
    made = empty().add(
        record("m", "moments", "conv2", "channel"), mean=[[0.0, 1.0]], variance=[[1.0, 2.0]]
    )
    return traced(made, m=2)


def minimal(profile: str = "minimal") -> Example:
    """Pointers to BatchNorm, soft targets, class similarity."""
    made = empty(profile)
    pointers = {
        role: {"axes": "f", "dtype": "F32", "file": "model.safetensors", "shape": [2]}
        | {"key": f"bn.{role}"}
        for role in ("running_mean", "running_var")
    }
    made.add(record("bn", "batchnorm", "conv", "channel", params={"eps": 1e-5}, tensors=pointers))
    made.add(
        record("soft", "soft_targets", "logits", None, classes=True, params={"temperature": 8.0}),
        mean_probability=[[0.75, 0.25], [0.25, 0.75]],
    )
    made.add(record("sim", "class_similarity", None, None), similarity=[[1.0, 0.5], [0.5, 1.0]])
    return traced(made, soft=2)


def standard(profile: str = "standard") -> Example:
    """Minimal, and per-class moments and covariance at the taps that are not linear."""
    made = minimal(profile)
    made.add(
        record("m_conv2", "moments", "conv2", "channel", classes=True),
        mean=[[0.0, 1.0], [1.0, 0.0]],
        variance=[[1.0, 2.0], [2.0, 1.0]],
    )
    made.add(
        record("cov_fc", "covariance", "fc", "unit", classes=True),
        mean=np.zeros((2, 3), np.float32),
        cholesky=np.stack([np.tri(3, dtype=np.float32)] * 2),
    )
    return traced(made, m_conv2=2, cov_fc=3)


def full() -> Example:
    """Standard, and a low-rank covariance per class at the input."""
    made = standard("full")
    made.add(
        record("cov_input", "covariance", "input", "unit", classes=True),
        mean=np.zeros((2, 4), np.float32),
        factor=np.ones((2, 1, 4), np.float32),
        residual_variance=[0.1, 0.2],
    )
    return traced(made, cov_input=4)


Edit = Callable[[Example], object]


def put(path: str, value: Any) -> Edit:
    """An edit that sets what a JSON pointer names (the parent must exist)."""

    def edit(example: Example) -> None:
        parent, last = _parent(example.document, path)
        parent[last] = copy.deepcopy(value)

    return edit


def drop(path: str) -> Edit:
    """An edit that removes what a JSON pointer names."""

    def edit(example: Example) -> None:
        parent, last = _parent(example.document, path)
        del parent[last]

    return edit


def _parent(document: Any, path: str) -> tuple[Any, Any]:
    *parts, last = path.split("/")[1:]
    for part in parts:
        document = document[int(part) if isinstance(document, list) else part]
    return document, int(last) if isinstance(document, list) else last


def safetensors(header: Any, data: bytes = b"") -> bytes:
    """A tensor file of any header (JSON value, text or bytes)."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(raw).to_bytes(8, "little") + raw + data
