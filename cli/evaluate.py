"""``dfkd-meta evaluate``: top-1 accuracy of a model folder on real data."""

from __future__ import annotations

from typing import Annotated

import typer

from dfkd_meta_cli.options import AsJson, Device, Factory, Quiet, pick_device
from dfkd_meta_cli.output import (
    TerminalProgress,
    errors_as_text,
    print_json,
    print_table,
)


def command(
    model: Annotated[str, typer.Argument(help="Folder of a model: from train, distill or pull.")],
    data: Annotated[str, typer.Option(help="Labeled data, e.g. digits, a folder or a file.")],
    split: Annotated[str, typer.Option(help="Which split of the data.")] = "test",
    factory: Factory = None,
    per_class: Annotated[bool, typer.Option("--per-class", help="One row per class.")] = False,
    device: Device = "auto",
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Measure the accuracy of a model on labeled data.

    Example: dfkd-meta evaluate student/ --data digits
    """
    with errors_as_text():
        import os

        from dfkd_meta.data import open_data
        from dfkd_meta.distillation.evaluation import class_counts, require_evaluable
        from dfkd_meta.errors import UsageError
        from dfkd_meta.teachers import open_teacher

        if not os.path.isdir(model):
            raise UsageError(
                "there is no such folder of a model",
                where=model,
                hint="train, export, distill and pull make them",
            )
        net = open_teacher(model, factory=factory).to(pick_device(device))
        dataset = open_data(data, split=split)
        require_evaluable(dataset, net.inputs, net.outputs)
        progress = TerminalProgress(quiet)
        right, count = class_counts(net.module, dataset, net.inputs, progress=progress)
        names = net.outputs.label_names or [str(label) for label in range(len(count))]
        classes = [
            {"class": name, "correct": int(r), "samples": int(n)}
            for name, r, n in zip(names, right, count, strict=True)
        ]
        facts = {
            "model": model,
            "data": dataset.name,
            "split": dataset.split,
            "samples": int(count.sum()),
            "correct": int(right.sum()),
            "accuracy": int(right.sum()) / int(count.sum()),
        }
        if as_json:
            print_json({**facts, "classes": classes})
            return
        shown = {**facts, "accuracy": f"{100 * float(right.sum()) / float(count.sum()):.2f} %"}
        print_table("evaluated", ["", "value"], list(shown.items()))
        if per_class:
            rows = [[row["class"], row["correct"], row["samples"]] for row in classes]
            print_table("by class", ["class", "correct n", "samples n"], rows)
