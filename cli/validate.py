"""``dfkd-meta validate``: every rule of the standard, every issue with its code."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from dfkd_meta_cli.options import AsJson
from dfkd_meta_cli.output import errors_as_text, print_json, print_line, printable


def command(
    path: Annotated[Path, typer.Argument(help="A sidecar folder, or the dfkd_meta.json in it.")],
    strict: Annotated[bool, typer.Option("--strict", help="Let warnings fail too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Check a sidecar against the standard and list everything that is wrong with it.

    Exit code 0: valid, 1: not valid.

    Example: dfkd-meta validate out/lenet5 --strict
    """
    # On import numpy starts a BLAS thread per core; nothing here multiplies matrices.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from dfkd_meta.sidecar import validate_sidecar
    from dfkd_meta.sidecar.files import sidecar_folder

    with errors_as_text():
        folder = sidecar_folder(path)
        report = validate_sidecar(folder, strict=strict)
    counts = {name: len(report.of(name)) for name in ("error", "warning", "note")}
    if as_json:
        issues = [issue.as_dict() for issue in report]
        facts = {"path": str(folder), "valid": report.ok, "strict": strict}
        print_json({**facts, "counts": counts, "issues": issues})
    else:
        for issue in report:
            where = printable(issue.path) or "the manifest"
            print_line(f"{issue.severity} {issue.code} {where}: {printable(issue.message)}")
            print_line(f"  mend: {issue.hint}")
        found = ", ".join(f"{n} {name}{'s' * (n != 1)}" for name, n in counts.items() if n)
        verdict = "valid" if report.ok else "not valid"
        print_line(f"{folder}: {verdict}" + (f" ({found})" if found else ""))
    if not report.ok:
        raise typer.Exit(1)
