"""``dfkd-meta train``: a network from scratch on labeled data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dfkd_meta_cli.options import (
    AsJson,
    Assignments,
    ConfigFile,
    Device,
    Overwrite,
    Quiet,
    given,
    pick_device,
)
from dfkd_meta_cli.output import TerminalProgress, errors_as_text, print_json, print_table


def command(
    architecture: Annotated[str, typer.Argument(help="See 'dfkd-meta list architectures'.")],
    data: Annotated[str, typer.Option(help="Labeled training data, e.g. digits or a folder.")],
    out: Annotated[Path, typer.Option(help="Folder for model.safetensors and config.json.")],
    seed: Annotated[int | None, typer.Option(help="Seed of start, order and augmentation.")] = None,
    eval_data: Annotated[
        str | None, typer.Option(help="Data to measure the finished network on.")
    ] = None,
    device: Device = "auto",
    config: ConfigFile = None,
    assignments: Assignments = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Train a built-in architecture on labeled data.

    Example: dfkd-meta train lenet5 --data mnist/ --set shape=[1,32,32] --out teacher
    """
    with errors_as_text():
        from dfkd_meta.config import load_config
        from dfkd_meta.data import data_paths, open_data
        from dfkd_meta.distillation.evaluation import accuracy
        from dfkd_meta.folders import new_folder, require_free
        from dfkd_meta.producer.train import TrainConfig, train_network
        from dfkd_meta.teachers import count_parameters, save_teacher

        settings = load_config(
            TrainConfig, file=config, assignments=assignments or (), override=given(seed=seed)
        )
        require_free(out, overwrite=overwrite, needed=(config, *data_paths(data, eval_data)))
        dataset = open_data(data, split="train")
        evaluation = open_data(eval_data, split="test") if eval_data else None
        progress = TerminalProgress(quiet)
        place = pick_device(device)
        progress.step(f"training {architecture} on {len(dataset):,} samples of {dataset.name}")
        net = train_network(
            architecture,
            dataset,
            settings,
            device=place,
            evaluation=evaluation,
            progress=progress,
        )
        with new_folder(out) as folder:
            save_teacher(folder, net)
        score = accuracy(net.to(place).module, evaluation, net.inputs) if evaluation else None
        facts = {
            "architecture": architecture,
            "parameters": count_parameters(net.module),
            "samples": len(dataset),
            "accuracy": score,
            "out": str(out),
        }
        if as_json:
            print_json(facts)
        else:
            shown = {
                **facts,
                "accuracy": "not measured" if score is None else f"{100 * score:.2f} %",
            }
            print_table("trained", ["", "value"], list(shown.items()))
