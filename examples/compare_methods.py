"""Students of one teacher by several methods, beside both real-data controls, over several seeds.

    python examples/compare_methods.py published mnist/ --students recorded noise --seeds 0 1 2

``published`` is a folder that ``dfkd-meta export`` made. The data are needed for the two controls
and to measure, never to distill. Prints a Markdown table: mean and range of the test accuracy of
the last step, and wall seconds, per method. Every student has the same schedule.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path
from statistics import mean

import torch

from dfkd_meta.comparison import REAL_KD, REAL_LABELS, Row, compare
from dfkd_meta.config import load_config
from dfkd_meta.consumer.pipeline import DistillConfig
from dfkd_meta.data import open_data
from dfkd_meta.sidecar import read_sidecar
from dfkd_meta.teachers import teacher_from_sidecar

CONTROLS = {"real_labels": REAL_LABELS, "real_kd": REAL_KD}


def main() -> None:
    """Run every student of the command line and print the table."""
    given = arguments()
    torch.set_num_threads(given.threads)
    sidecar = read_sidecar(given.published)
    teacher = teacher_from_sidecar(given.published, sidecar)
    data = open_data(given.data, split="train"), open_data(given.data, split="test")
    students = {CONTROLS.get(name, name): {} for name in given.students}
    rows: dict[str, list[Row]] = defaultdict(list)
    for seed in given.seeds:
        config = load_config(
            DistillConfig,
            assignments=given.set,
            override={"student": given.student, "seed": seed},
        )
        for row in compare(teacher, sidecar, data, students, config):
            rows[row.name].append(row)
            print(f"seed {seed}: {row.name}: {100 * row.accuracy:.2f} %", flush=True)
    print(table(rows, sidecar.manifest.profile))


def table(rows: dict[str, list[Row]], profile: str) -> str:
    """The rows as Markdown: accuracy in percent, mean (lowest to highest); seconds, mean."""
    lines = [
        f"| student of a `{profile}` sidecar | accuracy % | images | synthesis s | training s |",
        "|---|---|---|---|---|",
    ]
    for name, runs in rows.items():
        scores = [100 * run.accuracy for run in runs]
        spread = f" ({min(scores):.2f} to {max(scores):.2f})" if len(scores) > 1 else ""
        lines.append(
            f"| {name} | {mean(scores):.2f}{spread} | {runs[0].images:,} "
            f"| {mean(run.synthesis_seconds for run in runs):.0f} "
            f"| {mean(run.training_seconds for run in runs):.0f} |"
        )
    return "\n".join(lines)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("published", type=Path)
    parser.add_argument("data")
    parser.add_argument("--student", default="half")
    parser.add_argument(
        "--students",
        nargs="+",
        default=["real_labels", "real_kd", "recorded", "noise"],
        help="methods, real_labels, real_kd",
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE")
    return parser.parse_args()


if __name__ == "__main__":
    main()
