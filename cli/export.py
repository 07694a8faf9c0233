"""``dfkd-meta export``: the statistics of a teacher over its training data, as a sidecar."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dfkd_meta_cli.options import (
    AsJson,
    Assignments,
    ConfigFile,
    Device,
    Factory,
    Overwrite,
    Quiet,
    given,
    pick_device,
)
from dfkd_meta_cli.output import TerminalProgress, errors_as_text, print_json, print_table

if TYPE_CHECKING:
    from dfkd_meta.sidecar import Manifest


def command(
    teacher: Annotated[
        str,
        typer.Argument(help="A model folder; with --weights, an architecture or module:factory"),
    ],
    data: Annotated[str, typer.Option(help="The training data, e.g. digits, a folder, FILE.npz.")],
    out: Annotated[Path, typer.Option(help="Folder for teacher and sidecar.")],
    profile: Annotated[
        str | None, typer.Option(help="minimal, standard (the default) or full.")
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="A .safetensors file, when TEACHER is not a folder.")
    ] = None,
    eval_data: Annotated[
        str | None, typer.Option(help="Data to measure the teacher's accuracy on.")
    ] = None,
    factory: Factory = None,
    device: Device = "auto",
    config: ConfigFile = None,
    assignments: Assignments = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Compute statistics of a teacher over its training data and write teacher and sidecar.

    Example: dfkd-meta export teacher --data mnist/ --profile standard --out published
    """
    with errors_as_text():
        from time import perf_counter

        from dfkd_meta.config import load_config
        from dfkd_meta.data import data_paths, open_data
        from dfkd_meta.folders import real_path, require_free
        from dfkd_meta.producer.export import export
        from dfkd_meta.producer.opening import ExportRun, open_for_export

        settings = load_config(
            ExportRun,
            file=config,
            assignments=assignments or (),
            override=given(profile=profile, factory=factory),
        )
        opened = open_for_export(teacher, weights, settings).to(pick_device(device))
        if opened.home != real_path(out):
            needed = (teacher, weights, config, *data_paths(data, eval_data))
            require_free(out, overwrite=overwrite, needed=needed)
        dataset = open_data(data, split="train")
        evaluation = open_data(eval_data, split="test") if eval_data else None
        start = perf_counter()
        manifest = export(
            opened,
            dataset,
            settings,
            out,
            evaluation=evaluation,
            overwrite=overwrite,
            progress=TerminalProgress(quiet),
        )
        facts = _facts(manifest, out, perf_counter() - start)
        if as_json:
            print_json(facts)
        else:
            _print(facts)


def _facts(manifest: Manifest, out: Path, seconds: float) -> dict[str, Any]:
    from dfkd_meta.sidecar.summary import record_bytes

    evaluation = manifest.evaluation
    return {
        "out": str(out),
        "profile": manifest.profile,
        "samples": manifest.provenance.samples,
        "accuracy": evaluation and evaluation.accuracy,
        "records": [
            {
                "id": record.id,
                "tensors": {role: list(ref.shape) for role, ref in record.tensors.items()},
                "bytes": record_bytes(record),
            }
            for record in manifest.statistics
        ],
        "manifest_bytes": (out / "dfkd_meta.json").stat().st_size,
        "tensor_bytes": manifest.tensors.size,
        "seconds": round(seconds, 2),
    }


def _print(facts: dict[str, Any]) -> None:
    rows = [
        (
            record["id"],
            " ".join(f"{role}{shape}" for role, shape in record["tensors"].items()),
            f"{record['bytes']:,}",
        )
        for record in facts["records"]
    ]
    print_table(f"{len(rows)} records", ["record", "tensors", "bytes"], rows)
    accuracy = facts["accuracy"]
    summary = [
        ("folder", facts["out"]),
        ("profile", facts["profile"]),
        ("samples", f"{facts['samples']:,}"),
        ("teacher accuracy", "not measured" if accuracy is None else f"{100 * accuracy:.2f} %"),
        ("dfkd_meta.json", f"{facts['manifest_bytes']:,} bytes"),
        ("dfkd_meta.safetensors", f"{facts['tensor_bytes']:,} bytes"),
        ("time", f"{facts['seconds']} s"),
    ]
    print_table("sidecar", ["", "value"], summary)
