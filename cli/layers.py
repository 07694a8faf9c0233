"""``dfkd-meta layers``: the places of a teacher where statistics can be taken."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from dfkd_meta_cli.options import AsJson, Assignments, Factory, given
from dfkd_meta_cli.output import errors_as_text, print_json, print_line, print_table


def command(
    teacher: Annotated[
        str, typer.Argument(help="Model folder, built-in architecture, or your module:factory.")
    ],
    weights: Annotated[
        Path | None, typer.Option(help="Safetensors file, unless TEACHER is a folder.")
    ] = None,
    factory: Factory = None,
    assignments: Assignments = None,
    as_json: AsJson = False,
) -> None:
    """List the taps of a teacher: input, layers, last hidden layer and logits.

    With a sidecar in the folder, also the records it holds at each. The settings are those of
    export: inputs.* for what is not a folder, num_classes, arguments.*.

    Example: dfkd-meta layers teacher/
    """
    with errors_as_text():
        from dfkd_meta.config import load_config
        from dfkd_meta.producer.opening import ExportRun, open_for_export
        from dfkd_meta.teachers import count_parameters, default_taps

        options = load_config(
            ExportRun, assignments=assignments or (), override=given(factory=factory)
        )
        net = open_for_export(teacher, weights, options)
        records = _records(Path(teacher))
        parts = dict(net.module.named_modules())
        rows = []
        for tap in default_taps(net):
            part = parts[tap.module]
            rows.append(
                {
                    "id": tap.id,
                    "module": type(part).__name__,
                    "axes": " ".join(tap.axes),
                    "shape": list(tap.shape),
                    "parameters": count_parameters(part) if tap.module else 0,
                    "linear_in_input": tap.linear_in_input,
                    "records": records.get(tap.id, []),
                }
            )
        if as_json:
            facts = {"architecture": net.architecture, "parameters": count_parameters(net.module)}
            print_json({**facts, "taps": rows})
            return
        print_line(f"{net.architecture}: {count_parameters(net.module):,} parameters")
        _print(rows, with_records=bool(records))


def _records(folder: Path) -> dict[str, list[str]]:
    """Kinds of the records at each tap, from the sidecar in the folder if there is one."""
    from dfkd_meta.sidecar import MANIFEST_FILE, read_sidecar

    found: dict[str, list[str]] = {}
    if (folder / MANIFEST_FILE).is_file():
        for record in read_sidecar(folder).manifest.statistics:
            for tap in record.taps:
                found.setdefault(tap, []).append(f"{record.kind} ({record.scope})")
    return found


def _print(rows: list[dict[str, Any]], *, with_records: bool) -> None:
    columns = ["tap", "module", "axes", "shape", "parameters n", "linear in input"]
    table = []
    for row in rows:
        shape = "x".join(str(size) for size in row["shape"])
        linear = "yes" if row["linear_in_input"] else "no"
        count = f"{row['parameters']:,}" if row["parameters"] else ""
        cells = [row["id"], row["module"], row["axes"], shape, count, linear]
        table.append([*cells, ", ".join(dict.fromkeys(row["records"]))] if with_records else cells)
    print_table("taps", [*columns, "records"] if with_records else columns, table)
