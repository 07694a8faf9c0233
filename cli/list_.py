"""``dfkd-meta list``: what can be named on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from dfkd_meta_cli.options import AsJson, Factory
from dfkd_meta_cli.output import errors_as_text, print_json, print_line, print_table

TOPICS = ("methods", "architectures", "statistics", "losses", "options")


def command(
    what: Annotated[str, typer.Argument(help=" | ".join(TOPICS))] = "methods",
    of: Annotated[
        str | None,
        typer.Argument(help="With options: train, export, distill, demo or the name of a method."),
    ] = None,
    published: Annotated[
        Path | None,
        typer.Option(
            "--for", help="A folder with teacher and sidecar: which methods run, and their terms."
        ),
    ] = None,
    factory: Factory = None,
    as_json: AsJson = False,
) -> None:
    """List methods (with their source and needs), architectures, statistics, losses or options.

    Options are what --set takes, with their types and defaults; those of a method as options.NAME.

    Example: dfkd-meta list options recorded
    """
    with errors_as_text():
        from dfkd_meta.errors import UsageError

        if published is not None and what != "methods":
            raise UsageError("--for belongs to 'list methods'")
        if what != "options" and of is not None:
            raise UsageError(f"'list {what}' takes no {of!r}", hint=f"list options {of}")
        if factory is not None and published is None:
            raise UsageError("--factory belongs to 'list methods --for'")
        about = ""
        if what == "options":
            about, rows = _options(of or "distill")
        else:
            rows = _rows(what) if published is None else _components(published, factory)
        if as_json:
            print_json(rows)
        else:
            if about:
                print_line(about + "\n")
            print_table(what, list(rows[0]), [list(row.values()) for row in rows])


def _rows(what: str) -> list[dict[str, Any]]:
    from dfkd_meta.errors import UsageError

    if what == "methods":
        from dfkd_meta.synthesis.recipe import methods

        entries = [methods.get(name) for name in methods.names()]
        return [
            {
                "method": entry.name,
                "source": entry.source,
                "needs": "; ".join(
                    " or ".join(str(query) for query in alternatives)
                    for alternatives in entry.needs
                )
                or "nothing",
                "student trained meanwhile": "yes" if entry.in_rounds else "no",
            }
            for entry in entries
        ]
    if what == "architectures":
        from dfkd_meta.teachers import architectures

        return [_summary("architecture", n, architectures.get(n)) for n in architectures.names()]
    if what == "statistics":
        from dfkd_meta.statistics import statistics

        return [_summary("statistic", n, statistics.get(n)) for n in statistics.names()]
    if what == "losses":
        from dfkd_meta.distillation.losses import losses

        return [_summary("loss", n, losses.get(n)) for n in losses.names()]
    raise UsageError(f"there is no list of {what!r}", hint="one of: " + ", ".join(TOPICS))


def _options(of: str) -> tuple[str, list[dict[str, Any]]]:
    """What a verb or a method can be told: in words, and each option with type and default."""
    from inspect import getdoc

    from dfkd_meta.config import Config, described
    from dfkd_meta.consumer.pipeline import DistillConfig
    from dfkd_meta.demo import DemoConfig
    from dfkd_meta.producer.opening import ExportRun
    from dfkd_meta.producer.train import TrainConfig
    from dfkd_meta.synthesis.recipe import find_method

    verbs: dict[str, type[Config]] = {
        "distill": DistillConfig,
        "export": ExportRun,
        "train": TrainConfig,
        "demo": DemoConfig,
    }
    config = verbs[of] if of in verbs else find_method(of).config
    line = [part for part in reversed(config.mro()) if issubclass(part, Config) and part != Config]
    about = "\n\n".join(getdoc(part) or "" for part in line)
    return about, described(config, "" if of in verbs else "options.")


def _summary(what: str, name: str, entry: object) -> dict[str, str]:
    return {what: name, "what it is": (entry.__doc__ or "").strip().split("\n")[0]}


COLUMNS = ("adv", "bn", "oh", "balance", "act", "cr", "generator")


def _components(published: Path, factory: str | None) -> list[dict[str, Any]]:
    """The component table of the CMI benchmark, read from the recipes for one teacher."""
    from dfkd_meta.consumer.pipeline import component_table
    from dfkd_meta.sidecar import read_sidecar
    from dfkd_meta.teachers import teacher_from_sidecar

    sidecar = read_sidecar(published)
    teacher = teacher_from_sidecar(published, sidecar, factory=factory)
    table = component_table(teacher, sidecar)
    return [
        {
            "method": row.method,
            **{name: _cell(row.components.get(name)) for name in COLUMNS},
            "other terms": ", ".join(f"{name} {weight:g}" for name, weight in row.others.items()),
            "note": row.note,
        }
        for row in table
    ]


def _cell(value: float | str | None) -> str:
    return "" if value is None else value if isinstance(value, str) else f"{value:g}"
