"""Valid cases: every kind, every profile, and what a reader must tolerate."""

from __future__ import annotations

import json

import numpy as np

from tests.sidecar.cases import Case
from tests.sidecar.example import (
    Example,
    drop,
    empty,
    full,
    minimal,
    put,
    record,
    small,
    standard,
    tap,
    traced,
)


def _minimal_moments() -> Example:
    made = minimal()
    made.document["statistics"].pop(0)
    made.add(record("m", "moments", "conv2", "pooled"), mean=[[0, 1]], variance=[[1, 2]])
    return traced(made, m=2)


def _spectrum() -> Example:
    made = empty()
    made.document["taps"] = made.document["taps"][2:]
    item = record("s", "spectrum", "conv2", "pooled", count=[SAMPLES_OF_ALL])
    item["taps"] = ["conv2", "fc"]
    item["params"] = {"graph": "covariance", "kept_fraction": 0.4, "scope": "network"}
    basis = np.eye(5, dtype=np.float32)[None, :2]
    made.add(
        item,
        basis=basis,
        coefficient_mean=[[0.0, 1.0]],
        coefficient_variance=[[2.0, 1.0]],
        residual_energy=[0.5],
    )
    return traced(made, s=5)


SAMPLES_OF_ALL = 60


def _mixture() -> Example:
    made = empty().add(
        record("x", "mixture", "fc", "unit", classes=True),
        weight=[[0.5, 0.5], [1.0, 0.0]],
        mean=np.zeros((2, 2, 3), np.float32),
        factor=np.ones((2, 2, 1, 3), np.float32),
        mode_count=[[20, 20], [20, 0]],
    )
    return traced(made, x=3)


def _mixture_over_two_taps() -> Example:
    item = record("x", "mixture", "conv2", "pooled", count=[SAMPLES_OF_ALL])
    item["taps"] = ["conv2", "fc"]
    made = empty().add(
        item,
        weight=[[1.0]],
        mean=np.zeros((1, 1, 5), np.float32),
        factor=np.ones((1, 1, 2, 5), np.float32),
        mode_count=[[SAMPLES_OF_ALL]],
    )
    return traced(made, x=5)


def _quantiles() -> Example:
    made = empty().add(
        record("q", "quantiles", "conv2", "channel"),
        probability=[0.25, 0.5, 0.75],
        value=[[[-1, 0, 1], [0, 0, 2]]],
    )
    return traced(made, q=2)


def _power_spectrum() -> Example:
    made = empty().add(
        record("p", "power_spectrum", "conv2", "channel"),
        mean=[[0.0, 1.0]],
        power=[[[[2, 1], [1, 2]], [[1, 0], [0, 1]]]],
    )
    return traced(made, p=4)


def _class_left_out() -> Example:
    """No sample is of class 1: records by class are of the other, and keep the profile."""
    made = standard()
    made.document["provenance"]["class_counts"] = [SAMPLES_OF_ALL, 0]
    for item in made.document["statistics"]:
        if item["scope"] == "per_class":
            item["classes"], item["count"] = [0], [SAMPLES_OF_ALL]
            for ref in item["tensors"].values():
                made.tensors[ref["key"]] = made.tensors[ref["key"]][:1]
                ref["shape"][0] = 1
    features = {"soft": 2, "m_conv2": 2, "cov_fc": 3}
    return traced(made, **features)


def _many_rows(reduction: str) -> Example:
    made = empty().add(
        record("cov", "covariance", "fc", reduction, classes=True, count=[40, 11]),
        mean=np.zeros((2, 3), np.float32),
        factor=np.ones((2, 3, 3), np.float32),
        residual_variance=[0.1, 0.2],
    )
    return traced(made, cov=3)


def _triangle() -> Example:
    """11 samples bear two rows: the second triangle has three of its own, the first two."""
    flat = np.diag(np.float32([1, 2, 0]))
    made = empty().add(
        record("cov", "covariance", "fc", "unit", classes=True, count=[11, 11]),
        mean=np.zeros((2, 3), np.float32),
        cholesky=np.stack([flat, np.eye(3, dtype=np.float32)]),
    )
    return traced(made, cov=3)


def _channels_of_a_flat_input() -> Example:
    """Four channels and one position: each feature of each sample, as with reduction ``unit``."""
    made = minimal()
    made.document["taps"].append(tap("flat", [4], linear=True))
    made.add(record("m", "moments", "flat", "channel"), mean=[[0] * 4], variance=[[1] * 4])
    return traced(made, m=4)


def _fractal() -> Example:
    """A tap with nothing but a record of an unknown kind: no profile promises moments there."""
    made = standard()
    made.document["taps"].append(tap("conv3", [2, 2, 1]))
    made.document["statistics"].append({"id": "z", "kind": "fractal", "taps": ["conv3"]})
    return made


def _dropout() -> Example:
    item = record("d", "dropout", None, None, params={"sites": ["drop1", "drop2"]})
    return empty().add(item, keep_probability=[0.8, 0.5]).seal()


def _dtypes() -> Example:
    made = _mixture()
    made.document["statistics"].clear()
    made.tensors.clear()
    made.add(
        record("x", "mixture", "fc", "unit"),
        weight=np.array([[0.5, 0.5]], np.float16),
        mean=np.zeros((1, 2, 3), np.float64),
        factor=np.ones((1, 2, 1, 3), np.float32),
        mode_count=np.array([[30, 30]], np.int64),
    )
    return traced(made, x=3)


def flat_input() -> Example:
    made = empty()
    made.document["inputs"] = {
        "shape": [4], "axes": ["f"], "value_range": [0, 16], "mean": [5], "std": [6.0],
    }  # fmt: skip
    made.document["taps"] = [tap("input", [4], linear=True, side="input"), tap("tokens", [2, 3])]
    made.add(record("t", "moments", "tokens", "channel"), mean=[[0, 0, 0]], variance=[[1, 1, 1]])
    return traced(made, t=3)


def _gaussian() -> Example:
    made = small()
    made.document["privacy"].update(
        mechanism="gaussian", clip_bound=4.0, epsilon=1.0, delta=1e-5, covers=["m"]
    )
    return made.seal()


def _version_0_9() -> Example:
    """The founding draft's names; this case stays for ever."""
    made = small()
    document = made.document
    document["spec_version"] = "0.9"
    del document["format_version"]
    document["provenance"]["profile"] = document.pop("profile")
    document["teacher"]["weights"] = document["teacher"].pop("files")
    inputs = document["inputs"]
    inputs["normalization"] = {"mean": inputs.pop("mean"), "std": inputs.pop("std")}
    document["layers"] = document.pop("taps")
    for layer in document["layers"]:
        layer["linear"] = layer.pop("linear_in_input")
    records = {item.pop("id"): item for item in document.pop("statistics")}
    for item in records.values():
        (item["layer"],) = item.pop("taps")
    document["statistics"] = records
    return made


def _elsewhere() -> Example:
    made = small()
    made.files.clear()
    made.document["teacher"].update(repo_id="user/teacher", revision="a" * 40)
    return made


def _unsorted(example: Example) -> None:
    data = example.manifest_bytes()
    example.raw_manifest = data.replace(b'"format": "dfkd-meta",\n  ', b"", 1).replace(
        b"{\n", b'{\n  "format": "dfkd-meta",\n  "extensions": {},\n', 1
    )


def _unreferenced(example: Example) -> None:
    example.tensors["stray"] = np.zeros(1, np.float32)


INPUT_NOTES = ["DM407"]

CASES = [
    Case("custom-empty", [], empty()),
    Case("custom-one-record", [], small()),
    Case("minimal-batchnorm", [], minimal()),
    Case("minimal-moments", [], _minimal_moments()),
    Case("standard", [], standard()),
    Case("class-left-out", [], _class_left_out()),
    Case("full", INPUT_NOTES, full()),
    Case("spectrum-over-two-taps", [], _spectrum()),
    Case("mixture", [], _mixture()),
    Case("mixture-over-two-taps", [], _mixture_over_two_taps()),
    Case("quantiles", [], _quantiles()),
    Case("power-spectrum", [], _power_spectrum()),
    Case("dropout", [], _dropout()),
    Case("dtypes", [], _dtypes()),
    Case("flat-input-and-tokens", [], flat_input()),
    Case("flat-input-feature-by-feature", [], flat_input(), [
        put("/inputs/mean", [5, 0.5, 0, -2]),
        put("/inputs/std", [6.0, 0.1, 1, 3]),
    ]),
    Case("flat-input-in-gray", [], flat_input(), [put("/inputs/color_order", "gray")]),
    Case("gaussian-mechanism", [], _gaussian()),
    Case("version-0.9", ["DM112"], _version_0_9()),
    Case("newer-minor", ["DM111", "DM130", "DM130"], small(), [
        put("/format_version", "1.7"),
        put("/teacher/signature", {"new": "in 1.7"}),
        put("/new_block", {}),
    ]),
    Case("extensions", [], small(), [
        put("/extensions", {"x-lab": {"note": "kept as it is"}}),
        put("/$schema", "https://dfkd-meta.github.io/schema/v1.0/dfkd_meta.schema.json"),
    ]),
    Case("nested-as-deep-as-allowed", [], small(), [
        put("/extensions", {"x-deep": json.loads("[" * 30 + "1" + "]" * 30)}),
    ]),
    Case("names-in-any-script", [], small(), [
        put("/outputs/label_names", ["猫", "chien"]),
        put("/provenance/dataset", {"name": "Kätzchen", "split": "train"}),
        put("/evaluation", {"accuracy": 0.5, "samples": 20, "split": "test"}),
    ]),
    Case("teacher-elsewhere", ["DM505"], _elsewhere()),
    Case("unknown-kind", ["DM350"], small(), [put("/statistics/0/kind", "fractal")]),
    Case("unknown-kind-at-a-tap-of-its-own", ["DM350"], _fractal()),
    Case("unknown-kind-version", ["DM351"], small(), [put("/statistics/0/kind_version", 2)]),
    Case("unknown-role", ["DM321"], small(), [
        put("/statistics/0/tensors/skewness", {
            "key": "m/mean", "dtype": "F32", "shape": [1, 2], "axes": "g f",
        }),
    ]),
    Case("unknown-field", ["DM130"], small(), [put("/statistics/0/colour", "blue")]),
    Case("unreferenced-tensor", ["DM213"], small(), [_unreferenced]),
    Case("keys-not-sorted", ["DM131"], small(), after=[_unsorted]),
    Case("tracing-strength-missing", ["DM405"], small(), [drop("/privacy/tracing_strength/m")]),
    Case("tracing-strength-above-one", ["DM406", "DM410"], small(), [
        put("/privacy/min_group_size", 1),
        put("/statistics/0/count", [1]),
        put("/privacy/tracing_strength/m", 1.414214),
    ]),
    Case("more-rows-than-samples-bear", ["DM411"], _many_rows("unit")),
    Case("more-rows-by-channel-at-a-flat-tap", ["DM411"], _many_rows("channel")),
    Case("a-triangle-that-holds-its-samples", ["DM411"], _triangle()),
    Case("input-record-in-standard", ["DM407", "DM408"], full(), [put("/profile", "standard")]),
    Case("flat-input-by-channel-in-minimal", ["DM407", "DM408"], _channels_of_a_flat_input()),
]  # fmt: skip
