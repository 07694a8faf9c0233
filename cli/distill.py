"""``dfkd-meta distill``: a student from a teacher and its sidecar, without data."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from dfkd_meta_cli.options import (
    AsJson,
    Assignments,
    ConfigFile,
    Device,
    Factory,
    Overwrite,
    Quiet,
    Token,
    given,
    pick_device,
)
from dfkd_meta_cli.output import TerminalProgress, errors_as_text, print_json, print_table


def command(
    where: Annotated[
        str, typer.Argument(metavar="ID", help="user/repo, user/repo@revision or a folder.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the student and the run.")],
    student: Annotated[
        str | None,
        typer.Option(
            help="half, quarter or a ratio of the teacher's width; a built-in architecture; "
            "your own module:function."
        ),
    ] = None,
    method: Annotated[
        str | None, typer.Option(help="See 'dfkd-meta list methods'; or your own module:name.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="One seed for the whole run.")] = None,
    eval_data: Annotated[
        str | None, typer.Option(help="Data to measure the finished student on; never trained on.")
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(help="Time to take on this machine, e.g. 5m: decides images and steps."),
    ] = None,
    factory: Factory = None,
    device: Device = "auto",
    config: ConfigFile = None,
    assignments: Assignments = None,
    token: Token = None,
    overwrite: Overwrite = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an interrupted run of the same settings.")
    ] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Distill a student from a teacher and its sidecar, without the original data.

    Example: dfkd-meta distill user/teacher --student half --out student
    """
    with errors_as_text():
        from dfkd_meta.config import load_config
        from dfkd_meta.consumer.budget import seconds_of
        from dfkd_meta.consumer.distill import distill
        from dfkd_meta.consumer.pipeline import DistillConfig, check_names
        from dfkd_meta.consumer.results import save_run
        from dfkd_meta.data import data_paths, open_data
        from dfkd_meta.folders import require_free
        from dfkd_meta.hub import hide_bars, resolve_source

        settings = load_config(
            DistillConfig,
            file=config,
            assignments=assignments or (),
            override=given(student=student, method=method, seed=seed),
        )
        check_names(settings)
        seconds = None if budget is None else seconds_of(budget)
        needed = (where, config, *data_paths(eval_data, settings.options.get("data")))
        _check_unfinished(out, resume=resume, overwrite=overwrite)
        require_free(out, overwrite=overwrite, needed=needed, beside=".unfinished.tmp")
        evaluation = open_data(eval_data, split="test") if eval_data else None
        progress = TerminalProgress(quiet)
        if resume and not unfinished(out).exists():
            progress.step("there is no interrupted run to go on with: this one starts afresh")
        if quiet or as_json or not sys.stderr.isatty():
            hide_bars()
        pulled = resolve_source(where, token=token, progress=progress)
        try:
            run = distill(
                pulled,
                settings,
                factory=factory,
                device=pick_device(device),
                evaluation=evaluation,
                checkpoint=unfinished(out),
                resume=resume,
                seconds=seconds,
                progress=progress,
            )
        except KeyboardInterrupt:
            saved = unfinished(out).exists()
            told = f"{unfinished(out)} keeps it for --resume" if saved else "nothing was saved yet"
            progress.step(f"stopped; {told}")
            raise
        progress.step(f"saving to {out}")
        facts = save_run(run, out, overwrite=overwrite)
        unfinished(out).unlink(missing_ok=True)
        if as_json:
            print_json(facts)
        else:
            _print(facts, out)


def unfinished(out: Path) -> Path:
    """Where an interrupted run waits: a file beside the folder that it would have become."""
    return out.parent / f"{out.name}.unfinished"  # with_name refuses "."


def _check_unfinished(out: Path, *, resume: bool, overwrite: bool) -> None:
    """Refuse to start over what can be continued, and to continue what is finished."""
    from dfkd_meta.errors import UsageError
    from dfkd_meta.hub import RUN_FILE

    waiting = unfinished(out).exists()
    if waiting and not resume and not overwrite:
        raise UsageError(
            "there is an interrupted run",
            where=str(unfinished(out)),
            hint="--resume goes on with it, --overwrite starts afresh",
        )
    if resume and not waiting and not overwrite and (out / RUN_FILE).is_file():
        raise UsageError(
            "this run is finished", where=str(out), hint="--overwrite makes the student anew"
        )


def _print(facts: dict[str, Any], out: Path) -> None:
    result, teacher = facts["result"], facts["teacher"]
    rows = [
        ("teacher", f"{teacher['architecture']} (sidecar profile {teacher['profile']})"),
        (
            "student",
            f"{facts['student']['architecture']}, {facts['student']['parameters']:,} parameters",
        ),
        ("method", facts["config"]["method"]),
        ("inputs" if result["given"] else "synthetic inputs", f"{result['images']:,}"),
        ("agreement with the teacher on them", _percent(result["agreement_on_synthetic"])),
        ("agreement on new ones", _on_new(result)),
        ("seconds", ", ".join(f"{part} {value:.1f}" for part, value in result["seconds"].items())),
        ("saved in", str(out)),
    ]
    if result["accuracy"] is not None:
        rows.insert(6, ("accuracy on the evaluation data", _percent(result["accuracy"])))
    title = "distilled on given data" if facts["result"]["given"] else "distilled without data"
    print_table(title, ["", "value"], rows)


def _on_new(result: dict[str, Any]) -> str:
    share, inputs = result["agreement_on_new"], result["agreement_on_new_inputs"]
    return _percent(share) + (f" of {inputs:,}" if inputs else "")


def _percent(share: float | None) -> str:
    return "not measured" if share is None else f"{100 * share:.2f} %"
