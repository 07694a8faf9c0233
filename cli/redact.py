"""``dfkd-meta redact``: a sidecar without some of its records."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from dfkd_meta_cli.options import AsJson, Overwrite
from dfkd_meta_cli.output import errors_as_text, print_json, print_line


def command(
    path: Annotated[Path, typer.Argument(help="A sidecar folder, or the dfkd_meta.json in it.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the teacher and what is left.")],
    leave_out: Annotated[
        list[str] | None,
        typer.Option("--leave-out", metavar="PATTERN", help="Records to take out; repeatable."),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="PATTERN", help="Records to keep; repeatable."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Write nothing.")] = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Take records out of a sidecar, without the data: less to download, less that is told.

    A pattern stands for ids, such as quantiles/input/channel/global: kind, place, reduction, scope.
    The result is what an export without these records writes, but for its time. What has been
    published before stays published.

    Example: dfkd-meta redact published --leave-out 'quantiles/*' --out thinner
    """
    # On import numpy starts a BLAS thread per core; nothing here multiplies matrices.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from dfkd_meta.folders import require_free
    from dfkd_meta.sidecar import redact_sidecar
    from dfkd_meta.sidecar.files import sidecar_folder

    with errors_as_text():
        folder = sidecar_folder(path)
        require_free(out, overwrite=overwrite, needed=[folder])
        done = redact_sidecar(
            folder,
            out,
            leave_out=leave_out or (),
            only=only or (),
            overwrite=overwrite,
            dry_run=dry_run,
        )
    if as_json:
        facts = {"folder": str(done.folder), "profile": done.profile, "dry_run": dry_run}
        print_json({**facts, "removed": list(done.removed), "kept": list(done.kept)})
        return
    for name in done.removed:
        print_line(f"{'would remove' if dry_run else 'removed'} {name}")
    verb = "would keep" if dry_run else "kept"
    print_line(f"{done.folder}: {verb} {len(done.kept)} records; profile {done.profile}")
