"""Hostile files: always findings, never an exception, and a bounded number of them."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dfkd_meta.sidecar import KINDS, MANIFEST_FILE, TENSOR_FILE, ValidationReport, validate_sidecar
from dfkd_meta.sidecar.issues import MAX_ISSUES, MAX_PATH, Issue, pointer, short
from dfkd_meta.sidecar.json_text import MAX_MANIFEST_BYTES
from dfkd_meta.sidecar.store import MAX_TENSOR_FILE_BYTES, MAX_TENSORS
from dfkd_meta.sidecar.validation import examine
from tests.sidecar.cases.records import of
from tests.sidecar.cases.valid import CASES as VALID
from tests.sidecar.example import (
    Example,
    empty,
    full,
    put,
    record,
    safetensors,
    small,
    traced,
)

SAME_FOLDER = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


MORE_KINDS = ("mixture", "quantiles", "power-spectrum", "spectrum-over-two-taps", "dropout")


def every_kind() -> Example:
    """The profile full, and a record of every kind that it does not hold."""
    made = full()
    for case in VALID:
        if case.name in MORE_KINDS:
            other = copy.deepcopy(case.example.document)
            made.document["statistics"] += other["statistics"]
            made.document["privacy"]["tracing_strength"] |= other["privacy"]["tracing_strength"]
            made.tensors |= case.example.tensors
    return made.seal()


BASE = every_kind()
SCALARS = st.none() | st.booleans() | st.integers(-3, 2**63 - 1) | st.text(max_size=3)
SCALARS |= st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=2),
)


def places(value: Any, *path: str | int) -> list[tuple[str | int, ...]]:
    """Every place in a document."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    found = []
    for key, item in items:
        found.append((*path, key))
        if isinstance(item, dict | list):
            found += places(item, *path, key)
    return found


PLACES = places(BASE.document)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return every_kind().write(tmp_path)


@SAME_FOLDER
@given(st.data())
def test_any_value_at_any_place(folder: Path, data: st.DataObject) -> None:
    document = copy.deepcopy(BASE.document)
    for _ in range(data.draw(st.integers(1, 3))):
        *parents, last = data.draw(st.sampled_from(PLACES))
        parent = document
        try:
            for part in parents:
                parent = parent[part]
            if data.draw(st.booleans()):
                parent[last] = data.draw(VALUES)
            else:
                del parent[last]
        except (KeyError, IndexError, TypeError):
            continue  # an earlier change removed the place
    report = ValidationReport()
    examine(folder, report, json.dumps(document).encode(), BASE.tensor_bytes())
    assert all(isinstance(issue, Issue) and issue.message for issue in report)


@SAME_FOLDER
@given(st.data())
def test_any_bytes_changed_in_the_manifest(folder: Path, data: st.DataObject) -> None:
    text = bytearray(BASE.manifest_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        text[data.draw(st.integers(0, len(text) - 1))] = data.draw(st.integers(0, 255))
    text = text[: data.draw(st.integers(0, len(text)) | st.just(len(text)))]
    examine(folder, ValidationReport(), bytes(text), BASE.tensor_bytes())


@SAME_FOLDER
@given(st.data())
def test_any_bytes_changed_in_the_tensor_file(folder: Path, data: st.DataObject) -> None:
    whole = bytearray(BASE.tensor_bytes())
    at = data.draw(st.integers(0, len(whole) - 1))
    value = data.draw(st.integers(0, 255).filter(lambda value: value != whole[at]))
    whole[at] = value
    whole = whole[: data.draw(st.integers(0, len(whole)) | st.just(len(whole)))]
    report = ValidationReport()
    examine(folder, report, BASE.manifest_bytes(), bytes(whole))
    assert not report.ok  # the digest sees every change


@SAME_FOLDER
@given(st.sampled_from(sorted(BASE.tensors)), st.data())
def test_any_values_in_a_tensor(folder: Path, key: str, data: st.DataObject) -> None:
    example = every_kind()
    old = example.tensors[key]
    values = data.draw(st.lists(st.floats(width=32), min_size=old.size, max_size=old.size))
    example.tensors[key] = np.array(values, np.float32).reshape(old.shape)
    example.seal()
    report = ValidationReport()
    examine(folder, report, example.manifest_bytes(), example.tensor_bytes())
    assert report.ok or not np.array_equal(example.tensors[key], old)
    assert report.ok <= bool(np.isfinite(example.tensors[key]).all())


def flood(path: str, item: str, count: int) -> Example:
    """A document with a list of many equal items at one place."""
    example = full()
    put(path, "@")(example)
    text = example.manifest_bytes().replace(
        b'"@"', b"[" + b",".join([item.encode()] * count) + b"]"
    )
    example.raw_manifest = text
    return example


@pytest.mark.parametrize(
    ("path", "item"),
    [
        ("/outputs/label_names", "0"),
        ("/outputs/label_names", '"a"'),
        ("/taps", "{}"),
        ("/statistics", "0"),
        ("/statistics/0/count", "1"),
        ("/statistics/3/classes", "1"),
        ("/statistics/0/taps", '"input"'),
        ("/privacy/covers", '"x"'),
        ("/teacher/files", "{}"),
        ("/inputs/mean", "0"),
    ],
)
def test_a_flood_gives_few_findings(tmp_path: Path, path: str, item: str) -> None:
    report = validate_sidecar(flood(path, item, 100_000).write(tmp_path))
    assert not report.ok
    assert len(report.issues) <= MAX_ISSUES + 2


def test_too_large_a_manifest(tmp_path: Path) -> None:
    small().write(tmp_path)
    with (tmp_path / MANIFEST_FILE).open("r+b") as file:
        file.truncate(MAX_MANIFEST_BYTES + 1)
    assert [issue.code for issue in validate_sidecar(tmp_path)] == ["DM102"]


def test_too_large_a_tensor_file(tmp_path: Path) -> None:
    small().write(tmp_path)
    with (tmp_path / TENSOR_FILE).open("r+b") as file:
        file.truncate(MAX_TENSOR_FILE_BYTES + 1)  # sparse: it takes no room
    assert [issue.code for issue in validate_sidecar(tmp_path)] == ["DM202"]


def test_too_many_tensors(tmp_path: Path) -> None:
    example = small()
    entry = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    example.raw_tensors = safetensors({f"{n}": entry for n in range(MAX_TENSORS + 1)})
    assert [issue.code for issue in validate_sidecar(example.seal().write(tmp_path))] == ["DM214"]


def test_more_than_is_listed() -> None:
    report = ValidationReport()
    for number in range(2 * MAX_ISSUES):
        report.add("DM407", f"/statistics/{number}", "a note")
    assert [issue.code for issue in report.issues[-2:]] == ["DM407", "DM140"]
    assert report.ok
    assert not report.full
    report.add("DM340", "", "an error must not be lost behind notes")
    report.add("DM340", "", "one is enough")
    assert not report.ok
    assert report.full
    assert len(report.issues) == MAX_ISSUES + 2


def test_a_long_name_is_not_repeated_in_every_path(tmp_path: Path) -> None:
    example = small()
    tensors = example.document["statistics"][0]["tensors"]
    odd = {f"odd{number}": 0 for number in range(2 * MAX_ISSUES)}
    tensors["r" * 100_000] = {**tensors["mean"], **odd}
    report = validate_sidecar(example.write(tmp_path))
    assert report.ok
    assert report.cut
    assert all(len(issue.path) <= MAX_PATH + len("...") for issue in report)


def test_pointers_are_escaped_and_values_are_cut() -> None:
    assert pointer("a/b", 0, "c~d") == "/a~1b/0/c~0d"
    assert len(short("x" * 10**6)) <= 80
    assert short({"a": 1}) == "an object of 1 entries"
    assert "\x1b" not in short("\x1b[31m")


def test_the_example_holds_every_kind(folder: Path) -> None:
    assert {record["kind"] for record in BASE.document["statistics"]} == set(KINDS)
    assert validate_sidecar(folder, strict=True).ok


def test_a_role_that_another_kind_gives_a_meaning(tmp_path: Path) -> None:
    """An unknown role is kept; its name may be one of another kind."""
    example = empty().add(
        record("more", "moments", "fc", "unit"), mean=[[0] * 3], variance=[[1] * 3]
    )
    example.tensors["more/factor"] = np.ones((1, 2, 3), np.float32)
    example.document["statistics"][0]["tensors"]["factor"] = {
        "axes": "g k f", "dtype": "F32", "key": "more/factor", "shape": [1, 2, 3],
    }  # fmt: skip
    report = validate_sidecar(traced(example, more=3).write(tmp_path))
    assert report.ok
    assert "DM321" in {issue.code for issue in report}


@pytest.mark.parametrize("shape", [[4], [1, 1, 2, 3], [1, 2, 1, 1]])
def test_a_power_that_is_no_matrix(tmp_path: Path, shape: list[int]) -> None:
    example = of("power-spectrum")
    example.tensors["p/power"] = np.ones(shape, np.float32)
    ref = example.document["statistics"][0]["tensors"]["power"]
    ref["shape"] = shape
    assert not validate_sidecar(example.seal().write(tmp_path)).ok


def test_an_empty_tensor_of_sizes_that_no_array_has(tmp_path: Path) -> None:
    example = small()
    header = {"x": {"dtype": "F32", "shape": [0, 2**47, 2**47], "data_offsets": [0, 0]}}
    folder = example.write(tmp_path)
    (folder / "dfkd_meta.safetensors").write_bytes(safetensors(header))
    assert "DM209" in {issue.code for issue in validate_sidecar(folder)}
