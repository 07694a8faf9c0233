"""Invalid tensor files (DM2xx), and files that are not the ones described (DM5xx)."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from tests.sidecar.cases import Case
from tests.sidecar.cases.document import without
from tests.sidecar.cases.records import of, values
from tests.sidecar.example import WEIGHTS, Edit, Example, minimal, put, safetensors, small

MEAN = {"dtype": "F32", "shape": [1, 2], "data_offsets": [0, 8]}
VARIANCE = {"dtype": "F32", "shape": [1, 2], "data_offsets": [8, 16]}
DATA = bytes(16)


def _file(name: str, code: str, header: Any, data: bytes = DATA) -> Case:
    made = small()
    made.raw_tensors = safetensors(header, data)
    return Case(name, [code], made)


def _bytes(name: str, code: str, data: bytes) -> Case:
    made = small()
    made.raw_tensors = data
    return Case(name, [code], made)


def _entry(name: str, code: str, **changes: Any) -> Case:
    changed = {key: value for key, value in {**MEAN, **changes}.items() if value is not None}
    return _file(name, code, {"m/mean": changed, "m/variance": VARIANCE})


def _flip(example: Example) -> None:
    """Other values, same size: only the digest tells."""
    data = example.tensor_bytes()
    example.raw_tensors = data[:-1] + bytes([data[-1] ^ 1])


def _longer(example: Example) -> None:
    example.raw_tensors = small().tensor_bytes() + bytes(4)


def _weights(data: bytes, *, stated: bool) -> Edit:
    """Replace the teacher file, with or without stating its new size and digest."""

    def edit(example: Example) -> None:
        example.files["model.safetensors"] = data
        if stated:
            file = example.document["teacher"]["files"][0]
            file.update(size=len(data), sha256=hashlib.sha256(data).hexdigest())

    return edit


def _list(path: str, data: bytes | None) -> Edit:
    """List one more teacher file; None leaves it out of the folder."""

    def edit(example: Example) -> None:
        digest = hashlib.sha256(data or b"").hexdigest()
        file = {"path": path, "size": len(data or b""), "sha256": digest}
        example.document["teacher"]["files"].append(file)
        if data is not None:
            example.files[path] = data

    return edit


def _directory(example: Example) -> None:
    _list("config.json", None)(example)
    example.files["config.json/readme.txt"] = b"a folder where a file should be\n"


DUPLICATE = b'{"m/mean": %b, "m/mean": %b, "m/variance": %b}' % tuple(
    json.dumps(entry).encode() for entry in (MEAN, MEAN, VARIANCE)
)
BOTH = {"m/mean": MEAN, "m/variance": VARIANCE}

CASES = [
    Case("tensor-file-missing", ["DM201"], small(), after=[without("dfkd_meta.safetensors")]),
    Case("mixture-without-its-tensors", ["DM201"], of("mixture"), [
        values("x/mode_count", [[25, 15], [20, 0]]), values("x/weight", [[0.625, 0.375], [1, 0]]),
        put("/privacy/tracing_strength/x", 0.447214),
    ], after=[without("dfkd_meta.safetensors")]),
    _bytes("tensor-file-empty", "DM203", b""),
    _bytes("header-longer-than-file", "DM203", b"\xff\xff\0\0\0\0\0\0{}"),
    _bytes("header-of-exabytes", "DM203", b"\xff" * 8 + b"{}"),
    _file("header-not-json", "DM204", b"{not json}"),
    _file("header-a-list", "DM204", b"[]", b""),
    _file("header-with-leading-space", "DM204", b" " + json.dumps(BOTH).encode()),
    _file("tensor-name-twice", "DM205", DUPLICATE),
    _entry("entry-without-shape", "DM206", shape=None),
    _entry("entry-with-extra-field", "DM206", strides=[2, 1]),
    _entry("negative-dimension", "DM206", shape=[-1, -2]),
    _entry("dtype-brain-float", "DM207", dtype="BF16"),
    _file("tensor-name-not-ascii", "DM208", {**BOTH, "m/größe": MEAN}),
    _entry("shape-larger-than-bytes", "DM209", shape=[1, 200]),
    _entry("shape-overflows", "DM209", shape=[2**40, 2**40]),
    _file("tensors-overlap", "DM210", {"m/mean": MEAN, "m/variance": MEAN}),
    _file("hole-between-tensors", "DM210",
          {"m/mean": MEAN, "m/variance": {**VARIANCE, "data_offsets": [12, 20]}}, bytes(20)),
    _file("bytes-left-over", "DM211", BOTH, bytes(20)),
    _file("data-truncated", "DM211", BOTH, bytes(12)),
    _file("metadata-not-text", "DM212", {**BOTH, "__metadata__": {"n": 1}}),
    Case("teacher-file-a-folder", ["DM501"], small(), [_directory]),
    Case("tensor-file-other-size", ["DM211", "DM502"], small(), after=[_longer]),
    Case("tensor-file-changed", ["DM503"], small(), after=[_flip]),
    Case("teacher-file-missing", ["DM504"], small(), after=[without("model.safetensors")]),
    Case("teacher-file-other-size", ["DM506"], small(), [_weights(WEIGHTS + b" ", stated=False)]),
    Case("teacher-file-changed", ["DM507"], small(), [
        _weights(WEIGHTS[:-1] + b"\x01", stated=False),
    ]),
    Case("teacher-file-twice", ["DM508"], small(), [_list("model.safetensors", WEIGHTS)]),
    Case("teacher-file-a-pickle", ["DM509"], small(), [_list("pytorch_model.bin", b"\x80\x04.")]),
    Case("teacher-file-of-the-sidecar", ["DM509"], small(), [_list("dfkd_meta.safetensors", None)]),
    Case("teacher-file-unsound", ["DM510"], minimal(), [
        _weights(safetensors({"bn.running_mean": MEAN}), stated=True),
    ]),
    Case("pointer-to-unlisted-file", ["DM335", "DM335"], minimal(), [
        put("/statistics/0/tensors/running_mean/file", "other.safetensors"),
        put("/statistics/0/tensors/running_var/file", "other.safetensors"),
    ]),
    Case("pointer-to-missing-tensor", ["DM336"], minimal(), [
        put("/statistics/0/tensors/running_mean/key", "bn9.running_mean"),
    ]),
    Case("pointer-of-other-shape", ["DM336"], minimal(), [
        put("/statistics/0/tensors/running_mean/key", "fc.weight"),
    ]),
]  # fmt: skip
