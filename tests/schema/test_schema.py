"""The published schema: frozen, generated, and of one mind with the validator."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from dfkd_meta.sidecar import KINDS, ValidationReport
from dfkd_meta.sidecar.codes import CODES
from dfkd_meta.sidecar.json_schema import generate_schema
from dfkd_meta.sidecar.parse import parse_document
from tests.schema.publish_schema import with_table

ROOT = Path(__file__).parents[2] / "schema"
SCHEMA = ROOT / "v1.0" / "dfkd_meta.schema.json"
CASES = ROOT / "v1.0" / "cases"
# What a schema language can see; the other codes need tensors, files or two distant fields.
SCHEMA_LEVEL = {"DM107", "DM108", "DM109", "DM110", "DM113", "DM120", "DM121", "DM122", "DM123"}
SCHEMA_LEVEL |= {"DM124", "DM125", "DM311", "DM312", "DM315", "DM317", "DM320", "DM322", "DM332"}
SCHEMA_LEVEL |= {"DM402", "DM509"}
# Of these codes some cases are out of reach of the schema, or of the one that was frozen.
BEYOND = {"counts-for-other-groups", "logit-cholesky-without-mean", "teacher-file-of-the-sidecar"}


def codes(folder: Path) -> set[str]:
    return {issue["code"] for issue in json.loads((folder / "expected.json").read_text("utf-8"))}


def schema_level_cases() -> list[Path]:
    folders = sorted((CASES / "invalid").iterdir())
    return [f for f in folders if codes(f) & SCHEMA_LEVEL and f.name not in BEYOND]


def check_jsonschema(*files: Path) -> subprocess.CompletedProcess[str]:
    """The independent validator, run as its users run it."""
    command = [sys.executable, "-m", "check_jsonschema", "--schemafile", str(SCHEMA), "-o", "json"]
    return subprocess.run([*command, *map(str, files)], capture_output=True, text=True, check=False)


def test_the_schema_is_the_one_that_was_frozen() -> None:
    stated = (ROOT / "v1.0" / "SHA256").read_text("utf-8").split()[0]
    assert hashlib.sha256(SCHEMA.read_bytes()).hexdigest() == stated


def test_the_models_generate_the_schema() -> None:
    assert SCHEMA.read_bytes() == generate_schema()


def test_the_schema_is_a_schema() -> None:
    Draft202012Validator.check_schema(json.loads(SCHEMA.read_text("utf-8")))


def test_the_readme_lists_the_catalogue() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    assert text == with_table(text)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_the_readme_describes_every_kind_and_role(kind: str) -> None:
    lines = (ROOT / "README.md").read_text("utf-8").splitlines()
    (row,) = [line for line in lines if line.startswith(f"| `{kind}` |")]
    for role, rule in KINDS[kind].roles.items():
        assert f"`{role}` [{rule.axes}]" in row
    for param in KINDS[kind].params:
        assert f"`{param}`" in row


def test_the_example_of_the_readme_is_the_case_it_names() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    shown = json.loads(text.split("```json\n")[1].split("```")[0])
    case = CASES / "valid" / "custom-one-record" / "dfkd_meta.json"
    assert holds(json.loads(case.read_text("utf-8")), shown)


def holds(whole: Any, part: Any) -> bool:
    """Whether everything in ``part`` is in ``whole``."""
    if isinstance(part, dict):
        return all(key in whole and holds(whole[key], value) for key, value in part.items())
    if isinstance(part, list) and part and isinstance(part[0], dict):
        return all(any(holds(item, value) for item in whole) for value in part)
    return bool(whole == part)


def test_every_code_has_the_form_of_its_family() -> None:
    assert all(len(name) == 5 and name[:2] == "DM" and name[2] in "12345" for name in CODES)
    assert all(code.title and code.mend for code in CODES.values())


def test_a_second_opinion_accepts_every_valid_manifest(tmp_path: Path) -> None:
    files = []
    for folder in sorted((CASES / "valid").iterdir()):
        # An older document is of another schema; what it migrates to is of this one.
        file = tmp_path / f"{folder.name}.json"
        document = parse_document((folder / "dfkd_meta.json").read_bytes(), ValidationReport())
        file.write_text(json.dumps(document), "utf-8")
        files.append(file)
    result = check_jsonschema(*files)
    assert result.returncode == 0, result.stdout


def test_a_second_opinion_refuses_what_a_schema_can_see() -> None:
    folders = schema_level_cases()
    result = check_jsonschema(*(folder / "dfkd_meta.json" for folder in folders))
    found = json.loads(result.stdout)
    refused = {Path(error["filename"]).parent.name for error in found["errors"]}
    # To JSON Schema 2.0 is an integer, and its validator sees no difference to 2.
    assert refused == {folder.name for folder in folders} - {"integer-with-a-point"}
    assert len(folders) >= 35


def test_the_schema_refuses_nothing_that_only_tensors_can_tell() -> None:
    validator = Draft202012Validator(json.loads(SCHEMA.read_text("utf-8")))
    for folder in sorted((CASES / "invalid").iterdir()):
        only = codes(folder)
        if all(code.startswith(("DM2", "DM34", "DM404", "DM50")) for code in only - {"DM509"}):
            document: Any = json.loads((folder / "dfkd_meta.json").read_text("utf-8"))
            if "DM509" not in only:
                validator.validate(document)
