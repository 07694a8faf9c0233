"""Invalid documents (DM1xx) and disagreeing blocks (DM301 to DM308)."""

from __future__ import annotations

from typing import Any

from tests.sidecar.cases import Case
from tests.sidecar.cases.valid import flat_input
from tests.sidecar.example import Edit, Example, drop, put, small


def raw(old: bytes, new: bytes) -> Edit:
    """Replace bytes of the manifest text (they must be there)."""

    def edit(example: Example) -> None:
        data = example.manifest_bytes()
        if old not in data:
            raise ValueError(f"{old!r} is not in the manifest")
        example.raw_manifest = data.replace(old, new, 1)

    return edit


def text(data: bytes) -> Edit:
    def edit(example: Example) -> None:
        example.raw_manifest = data

    return edit


def without(name: str) -> Edit:
    def edit(example: Example) -> None:
        example.without = (name,)

    return edit


def _case(name: str, code: str, *edits: Edit) -> Case:
    return Case(name, [code], small(), list(edits))


def _put(name: str, code: str, path: str, value: Any) -> Case:
    return _case(name, code, put(path, value))


def _text(name: str, code: str, *after: Edit) -> Case:
    return Case(name, [code], small(), after=list(after))


DEEP = b'"extensions": {"x-deep": ' + b"[" * 31 + b"1" + b"]" * 31 + b'},\n  "format": '

CASES = [
    _text("manifest-missing", "DM101", without("dfkd_meta.json")),
    _text("not-json", "DM103", text(b'{"format": "dfkd-meta",')),
    _text("not-utf8", "DM103", raw(b'"example"', b'"ex\xff\xfeample"')),
    _text("byte-order-mark", "DM103", raw(b"{\n", b"\xef\xbb\xbf{\n")),
    _text("half-a-surrogate", "DM103", raw(b'"example"', b'"\\ud800"')),
    _text("duplicate-key", "DM104", raw(b'"profile"', b'"format": "dfkd-meta",\n  "profile"')),
    _text("nan-literal", "DM105", raw(b'"parameters": 10', b'"parameters": NaN')),
    _text("float-overflow", "DM105", raw(b'"parameters": 10', b'"parameters": 1e999')),
    _text("huge-integer", "DM105", raw(b'"parameters": 10', b'"parameters": 1' + b"0" * 300)),
    _text("nested-too-deep", "DM106", raw(b'"format": ', DEEP)),
    _put("too-many-teacher-files", "DM107", "/teacher/files", [0] * 1001),
    _text("not-an-object", "DM108", text(b"[]\n")),
    _put("another-format", "DM108", "/format", "croissant"),
    _case("version-missing", "DM109", drop("/format_version")),
    _put("version-malformed", "DM109", "/format_version", "one"),
    _put("version-as-number", "DM109", "/format_version", 1.0),
    _put("newer-major", "DM110", "/format_version", "2.0"),
    _put("version-without-migration", "DM113", "/format_version", "0.3"),
    _case("field-missing", "DM120", drop("/teacher/architecture")),
    _case("block-missing", "DM120", drop("/privacy")),
    _put("text-for-number", "DM121", "/outputs/num_classes", "2"),
    _put("fraction-for-integer", "DM121", "/outputs/num_classes", 2.5),
    _put("integer-with-a-point", "DM121", "/outputs/num_classes", 2.0),
    _put("object-for-list", "DM121", "/taps", {}),
    _put("boolean-for-integer", "DM121", "/statistics/0/count", [True]),
    _put("unknown-source", "DM122", "/teacher/source", "pickle"),
    _put("unknown-dtype", "DM122", "/statistics/0/tensors/mean/dtype", "BF16"),
    _text("tensor-file-elsewhere", "DM122", put("/tensors/file", "../dfkd_meta.safetensors")),
    _put("std-zero", "DM123", "/inputs/std", [0.0]),
    _put("negative-count", "DM123", "/statistics/0/count", [-1]),
    _put("path-leaves-folder", "DM124", "/teacher/files/0/path", "../model.safetensors"),
    _put("digest-malformed", "DM124", "/teacher/files/0/sha256", "ABC"),
    _put("extension-without-prefix", "DM124", "/extensions", {"lab": 1}),
    _put("date-that-never-was", "DM309", "/provenance/created", "2026-99-99T99:99:99Z"),
    _put("control-character", "DM124", "/outputs/label_names", ["\u001b[31m", "b"]),
    _put("no-teacher-file", "DM125", "/teacher/files", []),
    _put("five-axes", "DM125", "/inputs/shape", [1, 1, 1, 2, 2]),
    Case("tap-id-twice", ["DM301"], small(), [put("/taps/4/id", "fc")]),
    Case("record-id-twice", ["DM301"], small(), [
        lambda e: e.document["statistics"].append(e.document["statistics"][0]),
    ]),
    Case("tap-axes-too-few", ["DM302"], small(), [put("/taps/1/axes", ["c", "h"])]),
    Case("input-axis-twice", ["DM302"], small(), [put("/inputs/axes", ["c", "h", "h"])]),
    _put("mean-for-three-channels", "DM303", "/inputs/mean", [0.5, 0.5, 0.5]),
    Case("mean-for-some-features", ["DM303"], flat_input(), [put("/inputs/mean", [5, 0.5])]),
    _put("rgb-with-one-channel", "DM304", "/inputs/color_order", "rgb"),
    Case("flat-input-in-color", ["DM304"], flat_input(), [put("/inputs/color_order", "rgb")]),
    _put("std-below-float32", "DM319", "/inputs/std", [1e-60]),
    _put("mean-beyond-float32", "DM319", "/inputs/mean", [1e300]),
    _put("crop-of-a-giant", "DM319", "/inputs/crop_pct", 1e-9),
    _put("value-range-empty", "DM305", "/inputs/value_range", [1.0, 1.0]),
    _put("one-label-name-for-two", "DM306", "/outputs/label_names", ["cat"]),
    _put("input-tap-other-shape", "DM307", "/taps/0/shape", [1, 4, 4]),
    _put("input-tap-not-linear", "DM307", "/taps/0/linear_in_input", False),
    _put("logits-tap-other-shape", "DM307", "/taps/4/shape", [3]),
    _put("class-counts-do-not-sum", "DM308", "/provenance/class_counts", [40, 19]),
]  # fmt: skip
