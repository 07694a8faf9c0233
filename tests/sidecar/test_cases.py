"""The conformance cases: every folder gives exactly the findings that it states."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from dfkd_meta.sidecar import (
    MANIFEST_FILE,
    TENSOR_FILE,
    SidecarError,
    read_sidecar,
    validate_sidecar,
)
from dfkd_meta.sidecar.codes import CODES
from tests.sidecar.cases import document, records, tensor_file, valid
from tests.sidecar.example import full

CASES = Path(__file__).parents[2] / "schema" / "v1.0" / "cases"
VALID = sorted((CASES / "valid").iterdir())
INVALID = sorted((CASES / "invalid").iterdir())
# Too big to be kept as files, or about the list itself: test_hostile.py.
ELSEWHERE = {"DM102", "DM140", "DM202", "DM214"}


def expected(folder: Path) -> Counter[tuple[str, str, str]]:
    listed = json.loads((folder / "expected.json").read_text("utf-8"))
    return Counter((issue["code"], issue["path"], issue["severity"]) for issue in listed)


@pytest.mark.parametrize("folder", VALID + INVALID, ids=lambda path: path.name)
def test_a_case_gives_the_findings_it_states(folder: Path) -> None:
    report = validate_sidecar(folder)
    found = Counter((issue.code, issue.path, issue.severity) for issue in report)
    assert found == expected(folder)
    assert report.ok == (folder.parent.name == "valid")


@pytest.mark.parametrize("folder", VALID, ids=lambda path: path.name)
def test_a_valid_case_can_be_read(folder: Path) -> None:
    sidecar = read_sidecar(folder)
    elsewhere = any(issue.code == "DM505" for issue in validate_sidecar(folder))
    for record in sidecar.manifest.statistics:
        for role, ref in record.tensors.items():
            if ref.file is None or not elsewhere:
                assert list(sidecar.array(record, role).shape) == ref.shape


@pytest.mark.parametrize("folder", INVALID, ids=lambda path: path.name)
def test_an_invalid_case_is_refused(folder: Path) -> None:
    with pytest.raises(SidecarError) as refusal:
        read_sidecar(folder)
    assert refusal.value.report.errors
    assert refusal.value.exit_code == 1


def test_warnings_fail_only_when_strict() -> None:
    folder = CASES / "valid" / "unknown-field"
    assert validate_sidecar(folder).ok
    assert not validate_sidecar(folder, strict=True).ok
    assert validate_sidecar(CASES / "valid" / "full", strict=True).ok  # notes never fail


def test_the_writer_gives_the_bytes_that_were_committed() -> None:
    folder, example = CASES / "valid" / "full", full()
    assert example.manifest_bytes() == (folder / MANIFEST_FILE).read_bytes()
    assert example.tensor_bytes() == (folder / TENSOR_FILE).read_bytes()


def test_every_code_has_a_case() -> None:
    seen = {code for folder in VALID + INVALID for code, _, _ in expected(folder)}
    assert seen == set(CODES) - ELSEWHERE


def test_there_are_enough_cases_and_no_orphans() -> None:
    assert len(VALID) >= 12
    assert len(INVALID) >= 40
    made = {case.name for case in valid.CASES}
    assert made == {folder.name for folder in VALID}
    made = {case.name for case in document.CASES + tensor_file.CASES + records.CASES}
    assert made == {folder.name for folder in INVALID}
