"""Invalid records (DM310 to DM360) and privacy statements (DM4xx)."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.sidecar.cases import Case
from tests.sidecar.cases.valid import CASES as VALID
from tests.sidecar.example import (
    Edit,
    Example,
    drop,
    minimal,
    put,
    record,
    small,
    standard,
    traced,
)

PLACE = "/statistics/0"


def of(name: str) -> Example:
    """A fresh copy of a valid case."""
    import copy

    return copy.deepcopy(next(case.example for case in VALID if case.name == name))


def values(key: str, array: Any) -> Edit:
    """Replace the values of a tensor (shape and dtype stay as the manifest says)."""

    def edit(example: Example) -> None:
        old = example.tensors[key]
        example.tensors[key] = np.broadcast_to(np.asarray(array, old.dtype), old.shape)

    return edit


def cut(key: str, *shape: int) -> Edit:
    """Cut a tensor, in the file and in the manifest."""

    def edit(example: Example) -> None:
        example.tensors[key] = example.tensors[key][tuple(slice(size) for size in shape)]
        for item in example.document["statistics"]:
            for ref in item["tensors"].values():
                if ref["key"] == key:
                    ref["shape"] = list(example.tensors[key].shape)

    return edit


def _case(name: str, code: str, example: Example, *edits: Edit) -> Case:
    return Case(name, [code], example, list(edits))


def _put(name: str, code: str, path: str, value: Any) -> Case:
    return _case(name, code, small(), put(path, value))


def _wide_factor(example: Example) -> None:
    """Four components of three features."""
    key = "x/factor"
    example.tensors[key] = np.ones((2, 2, 4, 3), np.float32)
    example.document["statistics"][0]["tensors"]["factor"]["shape"] = [2, 2, 4, 3]


def _triangle_without_mean(example: Example) -> None:
    """Where the logits spread, but not around what."""
    key = "soft/logit_cholesky"
    example.tensors[key] = np.stack([np.eye(2, dtype=np.float32)] * 2)
    example.document["statistics"][1]["tensors"]["logit_cholesky"] = {
        "axes": "g c c", "dtype": "F32", "key": key, "shape": [2, 2, 2],
    }  # fmt: skip


def _smallest_cosine(example: Example) -> None:
    """An integer whose magnitude does not fit its 64 bits."""
    example.tensors["sim/similarity"] = np.full((2, 2), -(2**63), np.int64)
    example.document["statistics"][2]["tensors"]["similarity"]["dtype"] = "I64"


def _covariance_for_moments(example: Example) -> None:
    """A global covariance where minimal promises BatchNorm or moments."""
    example.document["statistics"].pop(0)
    item = record("cov", "covariance", "fc", "unit")
    example.add(item, mean=np.zeros((1, 3)), cholesky=np.eye(3)[None])
    traced(example, cov=3)


RECORDS = [
    Case("tap-unknown", ["DM310"], small(), [
        put(PLACE + "/taps", ["conv9"]), drop("/privacy/tracing_strength/m"),
    ]),
    Case("two-taps-for-moments", ["DM311", "DM333", "DM333"], small(), [
        put(PLACE + "/taps", ["conv2", "conv2"]), put("/privacy/tracing_strength/m", 0.258199),
    ]),
    _case("reduction-missing", "DM312", small(), drop(PLACE + "/reduction"),
          drop("/privacy/tracing_strength/m")),
    _case("reduction-not-of-the-kind", "DM312", minimal(), put(PLACE + "/reduction", "pooled")),
    _case("no-channel-axis", "DM313", small(), put("/taps/2/axes", ["t", "h", "w"]),
          drop("/privacy/tracing_strength/m")),
    _put("classes-on-a-global-record", "DM314", PLACE + "/classes", [0]),
    Case("classes-missing", ["DM314", "DM360"], standard(), [drop("/statistics/3/classes")]),
    _case("class-out-of-range", "DM314", standard(), put("/statistics/3/classes", [0, 2])),
    _case("class-twice", "DM314", standard(), put("/statistics/3/classes", [1, 1])),
    _case("count-missing", "DM315", small(), drop(PLACE + "/count")),
    _case("counts-for-other-groups", "DM315", small(), put(PLACE + "/count", [60, 60])),
    _case("count-above-samples", "DM316", small(), put(PLACE + "/count", [61]),
          put("/privacy/tracing_strength/m", 0.181071)),
    _case("count-above-its-class", "DM316", standard(), put("/statistics/3/count", [40, 21]),
          put("/privacy/tracing_strength/m_conv2", 0.308607)),
    _case("batchnorm-per-class", "DM317", minimal(), put(PLACE + "/scope", "per_class"),
          put(PLACE + "/classes", [0, 1])),
    _case("role-missing", "DM320", small(), drop(PLACE + "/tensors/variance"),
          lambda e: e.tensors.pop("m/variance")),
    _case("logit-cholesky-without-mean", "DM320", minimal(), _triangle_without_mean),
    _case("soft-targets-of-a-hidden-layer", "DM318", minimal(),
          put("/statistics/1/taps", ["conv2"])),
    _case("parameter-missing", "DM322", minimal(), put(PLACE + "/params", {})),
    _case("temperature-zero", "DM322", minimal(), put("/statistics/1/params/temperature", 0)),
    _case("graph-unknown", "DM322", of("spectrum-over-two-taps"),
          put(PLACE + "/params/graph", "social")),
    _case("site-not-a-name", "DM322", of("dropout"), put(PLACE + "/params/sites", ["drop1", 2])),
    _case("tensor-not-in-file", "DM330", small(), lambda e: e.tensors.pop("m/mean")),
    _case("shape-other-than-in-file", "DM331", small(),
          lambda e: e.tensors.update({"m/mean": np.zeros((2, 1), np.float32)})),
    _case("dtype-other-than-in-file", "DM331", small(),
          lambda e: e.tensors.update({"m/mean": np.zeros((1, 2), np.float64)})),
    _put("axes-swapped", "DM332", PLACE + "/tensors/mean/axes", "f g"),
    _case("features-other-than-tap", "DM333", small(), cut("m/mean", 1, 1)),
    _case("groups-other-than-classes", "DM333", standard(), cut("m_conv2/mean", 1, 2)),
    _case("classes-other-than-outputs", "DM333", minimal(), cut("sim/similarity", 1, 2)),
    _case("cholesky-not-square", "DM333", standard(), cut("cov_fc/cholesky", 2, 3, 2)),
    _case("levels-other-than-values", "DM333", of("quantiles"), cut("q/probability", 2)),
    _case("sites-other-than-values", "DM333", of("dropout"),
          put(PLACE + "/params/sites", ["drop1"])),
    _case("frequencies-other-than-positions", "DM333", of("power-spectrum"), cut("p/power", 1, 1)),
    _case("rank-above-features", "DM334", of("mixture"), _wide_factor),
    _case("not-a-number", "DM340", small(), values("m/mean", np.nan)),
    _case("infinite-variance", "DM340", small(), values("m/variance", np.inf)),
    _case("negative-variance", "DM341", small(), values("m/variance", [[1.0, -1e-6]])),
    _case("probability-above-one", "DM342", of("dropout"), values("d/keep_probability", 1.5)),
    _case("probabilities-do-not-sum", "DM343", minimal(),
          values("soft/mean_probability", [[0.75, 0.25], [0.5, 0.25]])),
    _case("cholesky-upper-triangular", "DM344", standard(),
          values("cov_fc/cholesky", np.tri(3).T)),
    _case("cholesky-negative-diagonal", "DM344", standard(), values("cov_fc/cholesky", -np.eye(3))),
    Case("quantile-level-one", ["DM345", "DM409"], of("quantiles"), [
        values("q/probability", [0.25, 0.5, 1.0]),
    ]),
    _case("quantile-values-descend", "DM345", of("quantiles"), values("q/value", [2.0, 1.0, 0.0])),
    _case("modes-do-not-sum", "DM346", of("mixture"), values("x/mode_count", [[20, 21], [20, 0]])),
    Case("modes-without-end", ["DM340", "DM346"], of("mixture"), [
          values("x/mode_count", [[np.inf, 20], [20, 0]])]),
    _case("unused-mode-with-weight", "DM346", of("mixture"),
          values("x/weight", [[0.5, 0.5], [0.5, 0.5]])),
    _case("cosine-above-one", "DM348", minimal(), values("sim/similarity", [[1, 7], [7, 1]])),
    _case("cosine-of-the-smallest-integer", "DM348", minimal(), _smallest_cosine),
    _case("power-negative", "DM349", of("power-spectrum"), values("p/power", -1.0)),
    _case("power-not-symmetric", "DM349", of("power-spectrum"),
          values("p/power", [[2.0, 1.0], [0.5, 2.0]])),
    _case("basis-not-normalized", "DM347", of("spectrum-over-two-taps"), values("s/basis", 1.0)),
    _case("minimal-by-covariance", "DM360", minimal(), _covariance_for_moments),
    Case("minimal-without-promises", ["DM360"] * 3, small(), [put("/profile", "minimal"),
          put(PLACE + "/reduction", "unit"), put("/taps/2/shape", [2, 1, 1]),
    ]),
    _case("standard-without-covariance", "DM360", standard(),
          put("/statistics/4/reduction", "channel")),
    _case("standard-without-a-tap", "DM360", standard(), put("/taps/2/shape", [2, 1, 1]),
          put("/statistics/3/reduction", "unit")),
    Case("standard-without-a-described-class", ["DM360"] * 3, of("class-left-out"),
         [drop("/provenance/class_counts")]),
    Case("records-of-a-class-without-samples", ["DM316"] * 3, standard(),
         [put("/provenance/class_counts", [60, 0])]),
    _case("full-without-input-record", "DM360", standard("full")),
]  # fmt: skip

PRIVACY = [
    _case("group-below-minimum", "DM401", small(), put("/privacy/min_group_size", 61)),
    _case("mode-below-minimum", "DM401", of("mixture"),
          values("x/mode_count", [[35, 5], [20, 0]]), put("/privacy/tracing_strength/x", 0.774597)),
    _case("epsilon-without-mechanism", "DM402", small(), put("/privacy/epsilon", 1.0)),
    Case("gaussian-without-epsilon", ["DM402"] * 4, small(), [
        put("/privacy/mechanism", "gaussian"),
    ]),
    _case("covers-unknown-record", "DM403", of("gaussian-mechanism"),
          put("/privacy/covers", ["m", "n"])),
    _put("tracing-of-unknown-record", "DM403", "/privacy/tracing_strength/n", 0.5),
    _put("tracing-strength-wrong", "DM404", "/privacy/tracing_strength/m", 0.01),
    _case("quantile-of-few-samples", "DM409", of("quantiles"),
          values("q/probability", [0.01, 0.5, 0.75])),
]  # fmt: skip

CASES = RECORDS + PRIVACY
