"""What single rules mean, beyond the conformance cases."""

from __future__ import annotations

import copy
import json
import math
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from dfkd_meta.sidecar import InputSpec, Tap, channel_axis, validate_sidecar
from dfkd_meta.sidecar.checks.evidence import features_at
from dfkd_meta.sidecar.checks.layout import disagreements
from dfkd_meta.sidecar.checks.privacy import _crowded, _rank, _rows, tracing_strength
from dfkd_meta.sidecar.checks.values import _unit_rows
from tests.sidecar.cases.records import cut, of
from tests.sidecar.example import Example, empty, full, put, record, small, standard, tap, traced


def found(folder: Path, example: Example) -> list[str]:
    return sorted(issue.code for issue in validate_sidecar(example.write(folder)))


@pytest.mark.parametrize(
    ("reduction", "size"), [("unit", 24), ("channel", 2), ("pooled", 2), (None, None)]
)
def test_features_of_an_image_tap(reduction: str | None, size: int | None) -> None:
    place = Tap.model_validate(tap("conv", [2, 3, 4]))
    assert features_at(place, reduction) == size


def test_the_channel_axis() -> None:
    assert channel_axis(["c", "h", "w"]) == 0
    assert channel_axis(["t", "f"]) == 1
    assert channel_axis(["f", "c"]) == 1
    assert channel_axis(["h", "w"]) is None


def test_tracing_strength_grows_with_features_and_falls_with_samples() -> None:
    assert tracing_strength(100, 100) == 1
    assert tracing_strength(200, 100) == pytest.approx(math.sqrt(2))
    assert tracing_strength(100, 400) == pytest.approx(0.5)


def test_a_stated_strength_may_be_rounded(tmp_path: Path) -> None:
    example = small()
    put("/privacy/tracing_strength/m", 0.1826)(example)
    assert found(tmp_path, example) == []


def test_batchnorm_at_an_input_linear_tap_is_no_secret(tmp_path: Path) -> None:
    assert found(tmp_path, standard()) == []


def test_a_global_channel_record_at_the_input_is_only_noted(tmp_path: Path) -> None:
    example = standard().add(
        record("m_conv", "moments", "conv", "channel"), mean=[[0, 0]], variance=[[1, 1]]
    )
    assert found(tmp_path, traced(example, m_conv=2)) == ["DM407"]


def test_standard_needs_every_class(tmp_path: Path) -> None:
    example = standard()
    for place in (3, 4):
        put(f"/statistics/{place}/classes", [0])(example)
        put(f"/statistics/{place}/count", [40])(example)
        for ref in example.document["statistics"][place]["tensors"].values():
            ref["shape"][0] = 1
            example.tensors[ref["key"]] = example.tensors[ref["key"]][:1]
    traced(example, m_conv2=2, cov_fc=3)
    assert found(tmp_path, example) == ["DM360"] * 3


def test_a_linear_teacher_cannot_be_standard(tmp_path: Path) -> None:
    example = standard()
    for place in example.document["taps"]:
        place["linear_in_input"] = True
    assert "DM360" in found(tmp_path, example)


def test_values_are_looked_at_in_pieces_and_to_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dfkd_meta.sidecar.checks.values.CHUNK", 4)
    example = full()
    example.tensors["cov_fc/cholesky"][1, 0, 2] = 1e-9
    assert found(tmp_path, example.seal()) == ["DM344", "DM407"]


def test_counts_of_the_order_of_float32_still_sum(tmp_path: Path) -> None:
    many = 2**24 + 2
    example = empty().add(
        record("x", "mixture", "fc", "unit", count=[2 * many]),
        weight=[[0.5, 0.5]],
        mean=np.zeros((1, 2, 3), np.float32),
        factor=np.ones((1, 2, 1, 3), np.float32),
        mode_count=[[many, many]],
    )
    put("/provenance/samples", 2 * many)(example)
    put("/provenance/class_counts", [many, many])(example)
    assert found(tmp_path, traced(example, x=3)) == []


def test_a_triangle_that_is_no_square_has_no_rank() -> None:
    assert _rank(np.ones((1, 3, 2), np.float32)) is None


def test_modes_and_rows_are_compared_once_for_each_pair(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def counted(rows: np.ndarray, counts: np.ndarray) -> tuple[int, float] | None:
        calls.append(1)
        return _crowded(rows, counts)

    monkeypatch.setattr("dfkd_meta.sidecar.checks.privacy._crowded", counted)
    example = of("mixture")
    (item,) = example.document["statistics"]
    for number in range(20):
        example.document["statistics"].append({**copy.deepcopy(item), "id": f"x{number}"})
    assert found(tmp_path, example) == ["DM405"] * 20
    assert len(calls) == 1


def test_a_large_matrix_is_not_copied() -> None:
    values = np.full((1, 1000, 1000), 1000**-0.5, np.float32)  # 4 MB
    tracemalloc.start()
    assert _unit_rows(values)
    assert _rows(values)[0] == 1000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2e6
    assert _rows(np.ones((2, 3, 4))).dtype == np.uint8  # not eight bytes, where factors have two


def test_findings_do_not_depend_on_the_order_of_roles(tmp_path: Path) -> None:
    example = of("quantiles")
    cut("q/probability", 2)(example)
    example.seal()
    tensors = example.document["statistics"][0]["tensors"]
    places = []
    for names in (sorted(tensors), sorted(tensors, reverse=True)):
        example.document["statistics"][0]["tensors"] = {name: tensors[name] for name in names}
        example.raw_manifest = json.dumps(example.document).encode()
        report = validate_sidecar(example.write(tmp_path))
        places.append([issue.path for issue in report.errors])
    assert places[0] == places[1] == ["/statistics/0/tensors/value/shape"]


def test_features_of_a_table_are_not_pixels() -> None:
    spec = {"value_range": [0, 1], "mean": [0], "std": [1], "crop_pct": 0.875}
    flat = InputSpec.model_validate({**spec, "shape": [60_000], "axes": ["f"]})
    assert list(disagreements(flat)) == []
    wide = InputSpec.model_validate({**spec, "shape": [1, 60_000], "axes": ["c", "w"]})
    assert [code for code, _, _ in disagreements(wide)] == ["DM319"]


def test_a_role_may_have_any_name(tmp_path: Path) -> None:
    example = small()
    put("/statistics/0/tensors/[key]", {})(example)
    put("/extensions", {"[key]": 0})(example)
    paths = {issue.path for issue in validate_sidecar(example.write(tmp_path))}
    assert "/statistics/0/tensors/[key]/dtype" in paths
    assert "/extensions/[key]" in paths


def test_a_model_keeps_what_it_does_not_know() -> None:
    spec = InputSpec.model_validate(
        {"shape": [4], "axes": ["f"], "value_range": [0, 1], "mean": [0], "std": [1], "new": 7}
    )
    assert spec.model_dump()["new"] == 7
