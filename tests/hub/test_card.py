"""Model cards: our section and keys are ours, every other byte is the publisher's."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st

from dfkd_meta.errors import HubError
from dfkd_meta.hub import StudentFacts, front_matter, student_card, update_card
from dfkd_meta.hub.card import BEGIN, END, code, license_keys, mechanism, names_text, privacy_lines
from dfkd_meta.sidecar import Manifest, bytes_text, read_sidecar
from dfkd_meta.sidecar.summary import record_bytes
from tests.sidecar.cases.records import of
from tests.sidecar.example import minimal
from tests.support.golden import check_golden

GOLDEN = Path(__file__).parent / "golden"
FACTS = StudentFacts(
    name="student",
    architecture="lenet5_half",
    parameters=15_738,
    teacher="alice/teacher",
    commit="1" * 40,
    teacher_architecture="lenet5",
    teacher_parameters=61_706,
    sidecar_sha256="ab" * 32,
    profile="full",
    method="recorded",
    seed=0,
    command="dfkd-meta distill alice/teacher --student half --seed 0",
    license="MIT",
    teacher_accuracy=0.991,
    accuracy=0.972,
    evaluated_on="mnist#test",
)


@pytest.fixture
def manifest(folder: Path) -> Manifest:
    return read_sidecar(folder).manifest


def metadata(card: str) -> Any:
    return yaml.safe_load(card.split("---")[1])


def test_new_card(manifest: Manifest) -> None:
    check_golden(GOLDEN / "teacher.md", update_card("", manifest, "alice/teacher"))


def test_classes_that_are_not_described_are_told(tmp_path: Path) -> None:
    some = read_sidecar(of("class-left-out").write(tmp_path)).manifest
    assert "logits of 2 classes, 1 of them not described" in update_card("", some, "a/b")


def test_student_card() -> None:
    check_golden(GOLDEN / "student.md", student_card(FACTS))


def test_student_of_a_local_teacher_names_no_base_model() -> None:
    card = student_card(replace(FACTS, teacher="export", commit=None, accuracy=None))
    assert "base_model" not in metadata(card)
    assert "not measured" in card


def test_update_is_idempotent(manifest: Manifest) -> None:
    card = update_card("# Mine\n\nWords.", manifest, "a/b")
    assert update_card(card, manifest, "a/b") == card


CARD = """---
# a comment of mine
license: isc   # chosen with care
tags:
- vision   # keep
- "dfkd-meta"

language: [en,
  de]
widget:
  - text: "x: y"
---
Intro without a title.

<!-- dfkd-meta:begin -->
old section
<!-- dfkd-meta:end -->
Outro.
"""


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_foreign_text_is_kept(manifest: Manifest, newline: str) -> None:
    card = CARD.replace("\n", newline)
    updated = update_card(card, manifest, "a/b")
    assert "old section" not in updated
    for part in (
        "---\n# a comment of mine\nlicense: isc   # chosen with care\n",
        '\n\nlanguage: [en,\n  de]\nwidget:\n  - text: "x: y"\n',
        f"---\nIntro without a title.\n\n{BEGIN}\n",
        f"\n{END}\nOutro.\n",
    ):
        assert part.replace("\n", newline) in updated
    assert ("\r" in updated) == ("\r" in newline)
    assert not re.search(r"[^\r]\n", updated) or newline == "\n"
    assert metadata(updated)["tags"] == ["vision", "dfkd-meta", "data-free-knowledge-distillation"]
    assert metadata(updated)["license"] == "isc"


def test_card_without_metadata_or_section(manifest: Manifest) -> None:
    updated = update_card("# Mine\n\nWords.", manifest, "a/b")
    assert "---\n\n# Mine\n\nWords.\n\n" + BEGIN in updated


@pytest.mark.parametrize(
    "card", [BEGIN, END, END + BEGIN, BEGIN + BEGIN + END, BEGIN + END + BEGIN + END]
)
def test_broken_markers_are_refused(manifest: Manifest, card: str) -> None:
    with pytest.raises(HubError, match="once each"):
        update_card(card, manifest, "a/b")


@pytest.mark.parametrize("above", ["\n", "\ufeff", " \n\n"])
def test_metadata_need_not_be_the_very_first_thing(manifest: Manifest, above: str) -> None:
    updated = update_card(above + CARD, manifest, "a/b")
    assert updated.startswith(above + "---\n# a comment of mine\nlicense: isc")
    assert front_matter.parse(updated)["license"] == "isc"


@pytest.mark.parametrize(
    "block",
    ["a: [", "- a\n- b", "just words", "a: 1\n\tb: 2", "date: 2024-13-45", "x: 0x_", "[" * 3_000],
)
def test_bad_metadata_are_refused(manifest: Manifest, block: str) -> None:
    with pytest.raises(HubError) as caught:
        update_card(f"---\n{block}\n---\n", manifest, "a/b")
    assert "README.md" in (caught.value.hint or "")


def test_metadata_that_cannot_be_edited_are_refused() -> None:
    with pytest.raises(HubError, match="safely"):
        front_matter.update("---\n{tags: [a], license: mit}\n---\n", {"tags": ["b"]})
    with pytest.raises(HubError, match="safely"):
        front_matter.update("---\nbase: &x [a]\ntags: *x\nother: *x\n...\n---\n", {"new": 1})


keys = st.sampled_from(["tags", "license", "other", "note-1", "z"])
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text("ab: #-'\"\n|[{&*!", max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(keys, values), st.dictionaries(keys, values), st.booleans())
def test_metadata_merge_is_a_merge(
    old: dict[str, object], new: dict[str, object], flow: bool
) -> None:
    block = yaml.safe_dump(old, sort_keys=False) if old else ""
    if flow and old:
        block = "".join(
            yaml.safe_dump({key: value}, default_flow_style=True)[1:-2] + "\n"
            for key, value in old.items()
            if "\n" not in yaml.safe_dump({key: value}, default_flow_style=True)[:-1]
        )
        old = yaml.safe_load(block) or {}
    card = front_matter.update(f"---\n{block}---\nbody\n", new)
    assert front_matter.parse(card) == old | new
    assert card.endswith("---\nbody\n")


def test_license_is_one_the_hub_knows() -> None:
    assert license_keys(None) == {}
    assert license_keys("Apache-2.0") == {"license": "apache-2.0"}
    assert license_keys("House rules") == {"license": "other", "license_name": "House rules"}


def test_code_cannot_break_out() -> None:
    assert code("a`|<!-- dfkd-meta:end -->") == "`a'\\|<! -- dfkd-meta:end -->`"


def test_small_texts(manifest: Manifest) -> None:
    sizes = [bytes_text(n) for n in (999, 45_678, 8_100_000, 2**30)]
    assert sizes == ["999 bytes", "45.7 KB", "8.10 MB", "1.07 GB"]
    assert names_text(["a"] * 3 + list("bcdef")) == "`a`, `b`, `c`, `d` and 2 more"
    assert sum(record_bytes(record) for record in manifest.statistics) == 4 * (8 + 8 + 4)


def test_noise_is_stated(manifest: Manifest) -> None:
    noise = {"mechanism": "gaussian", "epsilon": 2.0, "delta": 1e-5}
    private = manifest.privacy.model_copy(update=noise)
    card = update_card("", manifest.model_copy(update={"privacy": private}), "a/b")
    assert "epsilon 2, delta 1e-05" in card


def test_noise_is_claimed_for_the_records_it_covers(folder: Path) -> None:
    manifest = read_sidecar(folder).manifest
    first, *others = (record.id for record in manifest.statistics)
    given = {"mechanism": "gaussian", "clip_bound": 1.0, "epsilon": 1.0, "delta": 1e-5}

    def claim(covers: list[str]) -> str:
        privacy = manifest.privacy.model_copy(update={**given, "covers": covers})
        return mechanism(privacy, len(manifest.statistics))

    assert "The others have no guarantee" not in claim([first, *others])
    text = claim([first])
    assert f"1 of {1 + len(others)} records" in text
    assert "The others have no guarantee" in text
    assert first in text


def test_batchnorm_pointers_describe_no_inputs(tmp_path: Path) -> None:
    manifest = read_sidecar(minimal().write(tmp_path)).manifest
    assert not any("inputs themselves" in line for line in privacy_lines(manifest))
