"""The ladder from older formats."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfkd_meta.errors import UsageError
from dfkd_meta.sidecar import FORMAT_VERSION, MANIFEST_FILE, SidecarError, read_sidecar
from dfkd_meta.sidecar.migrations import STEPS, from_0_9, is_outdated, migrate
from dfkd_meta.sidecar.upgrade import upgrade_sidecar
from tests.sidecar.example import drop, small

OLD = Path(__file__).parents[2] / "schema" / "v1.0" / "cases" / "valid" / "version-0.9"


def old_document() -> dict[str, Any]:
    document: dict[str, Any] = json.loads((OLD / MANIFEST_FILE).read_text("utf-8"))
    return document


def test_the_old_document_becomes_the_new_one() -> None:
    document = old_document()
    before = copy.deepcopy(document)
    assert migrate(document) == small().document
    assert document == before  # a pure function


def test_every_rung_leads_to_the_current_version() -> None:
    assert not is_outdated({"format_version": FORMAT_VERSION})
    for version in STEPS:
        assert migrate({"format_version": version})["format_version"] == FORMAT_VERSION


def test_the_current_version_is_left_alone() -> None:
    document = small().document
    assert migrate(document) == document


@pytest.mark.parametrize("name", ["spec_version", "format_version"])
def test_mean_and_std_are_moved_and_nothing_beside_them(name: str) -> None:
    inputs = {"shape": [4], "normalization": {"mean": [0], "std": [1], "shape": [9]}}
    moved = migrate({name: "0.9", "inputs": inputs})["inputs"]
    assert moved == {"shape": [4], "mean": [0], "std": [1], "normalization": {"shape": [9]}}


VALUES = st.recursive(
    st.none() | st.integers() | st.text(max_size=2),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(["layers", "layer", "linear", "weights", "profile", "normalization"]),
            inner,
            max_size=3,
        )
    ),
)
BLOCKS = st.sampled_from(["layers", "statistics", "inputs", "teacher", "provenance", "x"])


@given(st.dictionaries(BLOCKS, VALUES))
def test_a_step_never_fails_on_a_broken_document(document: dict[str, Any]) -> None:
    before = copy.deepcopy(document)
    assert from_0_9(document)["format_version"] == "1.0"
    assert document == before


def test_migrating_in_place(tmp_path: Path) -> None:
    folder = _copy(tmp_path / "old")
    assert upgrade_sidecar(folder, dry_run=True).written == (MANIFEST_FILE,)
    assert "spec_version" in (folder / MANIFEST_FILE).read_text("utf-8")
    done = upgrade_sidecar(folder)
    assert (done.old, done.new) == ("0.9", "1.0")
    assert (folder / MANIFEST_FILE).read_bytes() == small().manifest_bytes()
    assert upgrade_sidecar(folder).written == ()


def test_migrating_into_another_folder(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "new"
    upgrade_sidecar(OLD, out, dry_run=True)
    assert not out.exists()
    assert upgrade_sidecar(OLD, out).written[-1] == MANIFEST_FILE
    assert read_sidecar(out).manifest.format_version == "1.0"
    assert "spec_version" in (OLD / MANIFEST_FILE).read_text("utf-8")
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "model.safetensors").write_bytes(b"another teacher")
    for place in (out, taken):
        with pytest.raises(UsageError, match="not empty"):
            upgrade_sidecar(OLD, place)
    assert [path.read_bytes() for path in taken.iterdir()] == [b"another teacher"]


def test_what_stays_invalid_is_not_written(tmp_path: Path) -> None:
    folder = _copy(tmp_path / "old")
    document = old_document()
    del document["teacher"]["weights"]
    (folder / MANIFEST_FILE).write_text(json.dumps(document), "utf-8")
    before = (folder / MANIFEST_FILE).read_bytes()
    with pytest.raises(SidecarError, match="DM120"):
        upgrade_sidecar(folder)
    assert (folder / MANIFEST_FILE).read_bytes() == before


def test_a_document_without_a_version_is_refused(tmp_path: Path) -> None:
    example = small()
    drop("/format_version")(example)
    with pytest.raises(SidecarError, match="DM109"):
        upgrade_sidecar(example.write(tmp_path))


def _copy(folder: Path) -> Path:
    folder.mkdir()
    for path in OLD.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder
