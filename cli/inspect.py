"""``dfkd-meta inspect``: what a sidecar holds, as tables."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from dfkd_meta_cli.options import AsJson
from dfkd_meta_cli.output import errors_as_text, print_json, print_line, print_table


def command(
    path: Annotated[Path, typer.Argument(help="A sidecar folder, or the dfkd_meta.json in it.")],
    as_json: AsJson = False,
) -> None:
    """Show teacher, inputs, taps and statistics with their shapes and bytes.

    Reads the manifest only; whether the files fit it is what validate tells.

    Example: dfkd-meta inspect out/lenet5
    """
    from dfkd_meta.sidecar import read_manifest
    from dfkd_meta.sidecar.files import sidecar_folder
    from dfkd_meta.sidecar.summary import summarize

    with errors_as_text():
        facts = summarize(read_manifest(sidecar_folder(path)))
    if as_json:
        print_json(facts)
    else:
        _print_tables(facts)


def _print_tables(facts: dict[str, Any]) -> None:
    print_table("Teacher", ("what", "value"), _teacher(facts))
    print_table("Inputs and outputs", ("what", "value"), _inputs(facts))
    taps = (
        (t["id"], t["module"] or "(model)", t["side"], _shape(t["axes"], t["shape"]), _linear(t))
        for t in facts["taps"]
    )
    print_table("Taps", ("tap", "module", "side", "shape", "linear in input"), taps)
    columns = ("kind", "taps", "reduction", "scope", "samples n", "tensors", "bytes")
    print_table("Statistics", columns, map(_record, facts["statistics"]))
    stored = sum(record["bytes"] for record in facts["statistics"])
    size = facts["tensors"]["size"]
    print_line(f"{len(facts['statistics'])} records, {stored:,} bytes in a file of {size:,} bytes")


def _teacher(facts: dict[str, Any]) -> Iterable[tuple[str, str]]:
    teacher = facts["teacher"]
    yield "architecture", f"{teacher['architecture']} ({teacher['source']})"
    yield "arguments", ", ".join(f"{k}={v}" for k, v in teacher["arguments"].items()) or "none"
    yield "parameters", f"{teacher['parameters']:,}"
    if "repo_id" in teacher:
        yield (
            "repository",
            f"{teacher['repo_id']} at {teacher.get('revision', 'no fixed revision')}",
        )
    for file in teacher["files"]:
        yield "file", f"{file['path']}, {file['size']:,} bytes, sha256 {file['sha256'][:12]}..."
    if "evaluation" in facts:
        evaluation = facts["evaluation"]
        yield "accuracy", f"{evaluation['accuracy']:.2%} on {evaluation['split']}"
    yield "format and profile", f"{facts['format_version']}, {facts['profile']}"


def _inputs(facts: dict[str, Any]) -> Iterable[tuple[str, str]]:
    inputs, outputs, privacy = facts["inputs"], facts["outputs"], facts["privacy"]
    low, high = inputs["value_range"]
    yield "shape", _shape(inputs["axes"], inputs["shape"])
    yield "values", f"{low:g} to {high:g}, {inputs.get('color_order', 'no color order')}"
    yield "mean, std", f"{_numbers(inputs['mean'])}; {_numbers(inputs['std'])}"
    yield "classes", _classes(outputs["num_classes"], facts["provenance"].get("class_counts"))
    yield "samples", f"{facts['provenance']['samples']:,}"
    yield "smallest group", f"{privacy['min_group_size']:,}, mechanism {privacy['mechanism']}"


def _record(record: dict[str, Any]) -> tuple[str, ...]:
    tensors = ", ".join(
        f"{role} {'x'.join(map(str, tensor['shape']))}"
        + (f" (in {tensor['file']})" if tensor["file"] else "")
        for role, tensor in record["tensors"].items()
    )
    scope = record["scope"] if record["scope"] == "global" else f"{record['groups']} classes"
    smallest = "" if record["smallest_count"] is None else f"{record['smallest_count']:,}"
    taps = ", ".join(record["taps"])
    reduction = record["reduction"] or ""
    names = (record["kind"], taps, reduction, scope, smallest, tensors)
    return (*names, f"{record['bytes']:,}")


def _classes(known: int, counts: list[int] | None) -> str:
    left_out = (counts or []).count(0)
    return f"{known:,}, {left_out:,} of them not described" if left_out else f"{known:,}"


def _shape(axes: list[str], shape: list[int]) -> str:
    return " ".join(f"{axis}={size}" for axis, size in zip(axes, shape, strict=False))


def _linear(tap: dict[str, Any]) -> str:
    return "yes" if tap["linear_in_input"] else "no"


def _numbers(values: list[float]) -> str:
    return ", ".join(f"{value:.6g}" for value in values)
