"""``dfkd-meta bench``: a grid of distillations, measured alike, as one table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dfkd_meta_cli.options import AsJson, Device, Quiet, pick_device
from dfkd_meta_cli.output import TerminalProgress, errors_as_text, print_json, print_line

if TYPE_CHECKING:
    from dfkd_meta.bench.run import Bench


def command(
    grid: Annotated[Path, typer.Argument(metavar="GRID.toml", help="See examples/bench/.")],
    out: Annotated[Path, typer.Option(help="Folder for teachers, results and table; continued.")],
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="AXIS=PATTERN", help="Only these, e.g. method=lopes_*; repeatable."),
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Runs at the same time.")] = 1,
    table: Annotated[
        bool, typer.Option("--table", help="Run nothing; write the table of what there is.")
    ] = False,
    device: Device = "auto",
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Run every method of a grid that has no result yet, and write table.md and table.csv.

    With `curve` in the grid also curves.csv: accuracies on the way.

    The command can be stopped at any time; given again, it goes on where it stopped.

    Example: dfkd-meta bench examples/bench/quick.toml --out bench
    """
    with errors_as_text():
        import os

        from dfkd_meta.bench.grid import read_grid
        from dfkd_meta.bench.places import Places
        from dfkd_meta.bench.run import Bench, run_grid
        from dfkd_meta.errors import UsageError

        progress = TerminalProgress(quiet)
        bench = Bench(
            grid=read_grid(grid),
            out=out.resolve(),
            places=Places(grid.resolve().parent, dict(os.environ)),
            device=str(pick_device(device)),
            jobs=jobs,
            progress=progress,
        )
        failed = 0
        if table and only:
            raise UsageError("--table shows all there is", hint="leave --only out")
        if table and not bench.journal.exists():
            raise UsageError("there are no results yet", where=str(out), hint="leave --table out")
        try:
            if not table:
                made = run_grid(bench, only or ())
                failed = sum(record["status"] == "failed" for record in made)
        except KeyboardInterrupt:
            progress.step("stopped; the same command goes on from here")
            raise
        _report(bench, as_json=as_json)
    if failed:
        raise typer.Exit(1)


def _report(bench: Bench, *, as_json: bool) -> None:
    from dfkd_meta.bench.journal import write_text
    from dfkd_meta.bench.markdown import as_markdown
    from dfkd_meta.bench.run import results
    from dfkd_meta.bench.table import as_csv, curves_as_csv, sections_of

    found = results(bench)
    sections = sections_of(bench.grid, found)
    text = as_markdown(bench.grid.title, sections)
    write_text(bench.out / "table.md", text)
    write_text(bench.out / "table.csv", as_csv(sections))
    if curves := curves_as_csv(sections):
        write_text(bench.out / "curves.csv", curves)
    bench.progress.step(f"wrote {bench.out / 'table.md'} and table.csv")
    if as_json:
        print_json([record for _, record in found if record is not None])
    else:
        print_line(text.rstrip())
