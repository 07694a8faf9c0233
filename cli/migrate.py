"""``dfkd-meta migrate``: a sidecar of an older format, written in the current one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from dfkd_meta_cli.options import AsJson
from dfkd_meta_cli.output import errors_as_text, print_json, print_line


def command(
    path: Annotated[Path, typer.Argument(help="A sidecar folder, or the dfkd_meta.json in it.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="Write a copy here and leave the original alone.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Write nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Bring a sidecar to the current format version; the statistics stay as they are.

    Example: dfkd-meta migrate old/lenet5 --out new/lenet5
    """
    # On import numpy starts a BLAS thread per core; nothing here multiplies matrices.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from dfkd_meta.sidecar.files import sidecar_folder
    from dfkd_meta.sidecar.upgrade import upgrade_sidecar

    with errors_as_text():
        done = upgrade_sidecar(sidecar_folder(path), out, dry_run=dry_run)
    if as_json:
        facts = {"from": done.old, "to": done.new, "folder": str(done.folder)}
        print_json({**facts, "dry_run": dry_run, "written": list(done.written)})
    elif not done.written:
        print_line(f"{done.folder}: already format {done.new}, nothing to do")
    else:
        verb = "would write" if dry_run else "wrote"
        files = ", ".join(done.written)
        print_line(f"{done.folder}: {verb} {files} (format {done.old} -> {done.new})")
