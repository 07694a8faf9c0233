"""A valid sidecar of a few hundred bytes beside a linear two-class teacher, without torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from dfkd_meta.sidecar import StatisticRecord, pack_record, sha256_file, write_sidecar

FEATURES, CLASSES, SAMPLES = 4, 2, 60


def make_tiny_sidecar(folder: Path, *, seed: int = 0, **changes: Any) -> Path:
    """Write teacher and sidecar into the folder; ``changes`` replace manifest blocks."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    weights = {
        "fc.weight": random.normal(size=(CLASSES, FEATURES)).astype(np.float32),
        "fc.bias": np.zeros(CLASSES, np.float32),
    }
    save_file(weights, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"architecture": "tiny"}))
    records: list[StatisticRecord] = []
    tensors: dict[str, Any] = {}
    for record, arrays in _records(random):
        packed, own = pack_record(record, arrays)
        records.append(packed)
        tensors |= own
    manifest = _manifest(folder) | {"statistics": records} | changes
    write_sidecar(folder, manifest, tensors)
    return folder


def _records(random: np.random.Generator) -> list[tuple[StatisticRecord, dict[str, np.ndarray]]]:
    return [
        (
            StatisticRecord(
                id="moments.global.input", kind="moments", taps=["fc:input"],
                reduction="unit", count=[SAMPLES],
            ),
            {"mean": random.normal(size=(1, FEATURES)), "variance": np.ones((1, FEATURES))},
        ),
        (
            StatisticRecord(
                id="moments.class.output", kind="moments", taps=["output"], reduction="unit",
                scope="per_class", classes=[0, 1], count=[SAMPLES // 2] * CLASSES,
            ),
            {"mean": random.normal(size=(CLASSES, 2)), "variance": np.ones((CLASSES, 2))},
        ),
        (
            StatisticRecord(
                id="class_similarity", kind="class_similarity", taps=[],
            ),
            {"similarity": np.eye(CLASSES)},
        ),
    ]  # fmt: skip


def _manifest(folder: Path) -> dict[str, Any]:
    weights = folder / "model.safetensors"
    file = {
        "path": weights.name,
        "size": weights.stat().st_size,
        "sha256": sha256_file(weights),
    }
    return {
        "profile": "custom",
        "teacher": {
            "source": "local", "architecture": "tiny", "arguments": {}, "files": [file],
            "parameters": CLASSES * (FEATURES + 1), "license": "MIT",
        },
        "inputs": {
            "shape": [FEATURES], "axes": ["f"], "value_range": [0.0, 1.0],
            "mean": [0.0], "std": [1.0],
        },
        "outputs": {"num_classes": CLASSES},
        "taps": [
            {
                "id": "fc:input", "module": "fc", "side": "input", "axes": ["f"],
                "shape": [FEATURES], "linear_in_input": True,
            },
            {
                "id": "output", "module": "", "side": "output", "axes": ["f"],
                "shape": [CLASSES], "linear_in_input": True,
            },
        ],
        "provenance": {
            "tool": "dfkd-meta", "tool_version": "0.1.0", "created": "2026-01-01T00:00:00Z",
            "samples": SAMPLES, "class_counts": [SAMPLES // 2] * CLASSES,
            "preprocessing_sha256": "0" * 64,
        },
        "privacy": {
            "min_group_size": 11,
            "tracing_strength": {
                "moments.global.input": (FEATURES / SAMPLES) ** 0.5,
                "moments.class.output": (CLASSES / (SAMPLES // 2)) ** 0.5,
            },
        },
        "evaluation": {"accuracy": 0.9375, "samples": 80, "split": "test"},
    }  # fmt: skip
