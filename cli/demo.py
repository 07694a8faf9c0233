"""``dfkd-meta demo``: the whole way on the handwritten digits that come with scikit-learn."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from dfkd_meta_cli.options import AsJson, Assignments, ConfigFile, Overwrite, Quiet
from dfkd_meta_cli.output import (
    TerminalProgress,
    errors_as_text,
    print_json,
    print_line,
    print_table,
)


def command(
    out: Annotated[
        Path | None, typer.Option(help="Keep teacher and sidecar here (else they are thrown away).")
    ] = None,
    config: ConfigFile = None,
    assignments: Assignments = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Train a teacher on real digits, export its sidecar, and distill a student without the data.

    Example: dfkd-meta demo
    """
    with errors_as_text():
        import tempfile

        from dfkd_meta.config import load_config
        from dfkd_meta.data import data_paths
        from dfkd_meta.demo import DemoConfig, run_demo
        from dfkd_meta.errors import UsageError
        from dfkd_meta.folders import require_free

        if overwrite and out is None:
            raise UsageError("--overwrite is for the folder of --out", hint="add --out FOLDER")
        settings = load_config(DemoConfig, file=config, assignments=assignments or ())
        progress = TerminalProgress(quiet)
        if out is not None:
            own = (options.get("data") for options in settings.students.values())
            needed = (config, *data_paths(settings.data, *own))
            require_free(out, overwrite=overwrite, needed=needed)
            result = run_demo(out, settings, overwrite=overwrite, progress=progress)
        else:
            with tempfile.TemporaryDirectory() as scratch:
                result = run_demo(Path(scratch) / "teacher", settings, progress=progress)
        facts = _facts(result)
        if as_json:
            print_json(facts)
        else:
            _print(facts)


def _facts(result: Any) -> dict[str, Any]:
    return {
        "teacher_accuracy": result.teacher_accuracy,
        "sidecar_bytes": result.sidecar_bytes,
        "seconds": round(result.seconds, 1),
        "students": [
            {
                "method": row.method,
                "accuracy": row.accuracy,
                "images": row.images,
                "seconds": round(row.seconds, 1),
            }
            for row in result.rows
        ],
    }


NAMES = {
    "scratch": "student, real data (labels)",
    "real_data": "student, real data (KD)",
    "recorded": "student, NO data: teacher + sidecar",
    "noise": "student, no data: KD on noise",
}


def _print(facts: dict[str, Any]) -> None:
    from dfkd_meta.sidecar import bytes_text

    rows = [("teacher", f"{100 * facts['teacher_accuracy']:.2f}", "", "")]
    rows += [
        (
            NAMES.get(row["method"], row["method"]),
            f"{100 * row['accuracy']:.2f}",
            row["images"],
            row["seconds"],
        )
        for row in facts["students"]
    ]
    print_table("Accuracy on test digits", ["", "accuracy %", "images n", "seconds"], rows)
    print_line(
        f"The sidecar holds {bytes_text(facts['sidecar_bytes'])}; "
        f"the whole demo took {facts['seconds']:.0f} seconds."
    )
