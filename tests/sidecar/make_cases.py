"""Write the conformance cases into schema/v1.0/cases. Run by hand, from the repository root:

    python -m tests.sidecar.make_cases

A case is written only if the validator finds exactly the codes that the case was made for, so
that ``expected.json`` is what its author meant and not merely what the code said.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path

from dfkd_meta.sidecar import validate_sidecar
from tests.sidecar.cases import Case, document, records, tensor_file, valid

CASES = Path(__file__).parents[2] / "schema" / "v1.0" / "cases"


def main() -> int:
    """Rebuild both folders; 1 if a case does not give the codes it was made for."""
    groups = {"valid": valid.CASES}
    groups["invalid"] = document.CASES + tensor_file.CASES + records.CASES
    wrong = 0
    with tempfile.TemporaryDirectory() as temporary:
        for group, cases in groups.items():
            for case in cases:
                wrong += not _make(case, Path(temporary) / group)
        if not wrong:
            shutil.rmtree(CASES, ignore_errors=True)
            shutil.copytree(temporary, CASES)
    return int(wrong > 0)


def _make(case: Case, parent: Path) -> bool:
    folder = parent / case.name
    if folder.exists():
        sys.stderr.write(f"{case.name}: there are two cases of this name\n")
        return False
    case.build().write(folder)
    report = validate_sidecar(folder)
    found = sorted(issue.code for issue in report)
    good = found == sorted(case.codes) and report.ok == (parent.name == "valid")
    if not good:
        sys.stderr.write(f"{parent.name}/{case.name}: wanted {case.codes}\n")
        for issue in list(report)[:8]:
            sys.stderr.write(f"    {issue.code} {issue.path}: {issue.message}\n")
    expected = [
        {"code": issue.code, "path": issue.path, "severity": issue.severity} for issue in report
    ]
    (folder / "expected.json").write_text(json.dumps(expected, indent=1) + "\n", encoding="utf-8")
    return good


if __name__ == "__main__":
    sys.exit(main())
