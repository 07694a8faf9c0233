"""Pictures of a bench: accuracy over time, and accuracy over the size of the sidecar.

    python examples/bench/plot.py bench-metadata --over time --out time.svg
    python examples/bench/plot.py bench-metadata --over bytes --method recorded --out bytes.svg

``time`` reads curves.csv (a grid with ``curve = 10``), ``bytes`` table.csv; both show means over
the seeds, with the range where there are several. Needs matplotlib, the extra ``report``.
"""

from __future__ import annotations

import argparse
import csv
from collections import defaultdict
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING

import matplotlib

if TYPE_CHECKING:
    from matplotlib.axes import Axes

matplotlib.use("svg")
matplotlib.rcParams["svg.hashsalt"] = "dfkd-meta"  # the same numbers give the same file
CONTROLS = {"real_data": "black", "noise": "0.6", "scratch": "0.4", "alternative_data": "0.5"}
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c5a2b")  # Okabe-Ito
Row = dict[str, str]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("folder", type=Path, help="what `dfkd-meta bench --out` was given")
    parser.add_argument("--over", choices=["time", "bytes"], default="time")
    parser.add_argument("--method", default="recorded", help="whose line --over bytes shows")
    parser.add_argument("--out", type=Path, required=True, help="an .svg file")
    given = parser.parse_args()
    file = given.folder / ("curves.csv" if given.over == "time" else "table.csv")
    if not file.exists():
        parser.error(f"{file} is not there; run `dfkd-meta bench` (with `curve` in its grid) first")
    with file.open(newline="") as handle:
        rows = [r for r in csv.DictReader(handle) if r.get("accuracy") or r.get("accuracy_mean")]
    if given.over == "bytes":
        rows = [row for row in rows if row["method"] in (given.method, "real_data")]
    if not rows:
        parser.error(f"{file} has nothing to show")
    known = sorted({(row["method"], row["profile"]) for row in rows})
    colors = dict(zip((key for key in known if key[0] not in CONTROLS), COLORS, strict=False))
    panels: dict[tuple[str, ...], list[Row]] = defaultdict(list)
    for row in rows:
        panels[row["teacher"], row["student"], row["budget"]].append(row)
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(
        1, len(panels), figsize=(6.4 * len(panels), 4.4), squeeze=False, layout="constrained"
    )
    for axis, ((teacher, student, budget), found) in zip(axes[0], panels.items(), strict=True):
        axis.set_title(f"{teacher} -> {student}, {budget}", fontsize=10)
        axis.set_ylabel("test accuracy, %")
        axis.grid(color="0.92")
        axis.spines[["top", "right"]].set_visible(False)
        if given.over == "time":
            over_time(axis, found, colors)
        else:
            over_bytes(axis, found, given.method)
    figure.savefig(given.out, metadata={"Date": None})
    print(f"wrote {given.out}")


def over_time(axis: Axes, rows: list[Row], colors: dict[tuple[str, str], str]) -> None:
    """A line for each method and sidecar, the best first; controls are dashed."""
    lines: dict[tuple[str, str], dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        lines[row["method"], row["profile"]][row["seed"]].append(row)
    ends = {
        key: mean(float(looks[-1]["accuracy"]) for looks in lines[key].values()) for key in lines
    }
    for method, profile in sorted(lines, key=ends.__getitem__, reverse=True):
        looks = list(zip(*lines[method, profile].values(), strict=False))
        seconds = [mean(float(row["cpu_seconds"]) for row in look) / 60 for look in looks]
        scores = [[100 * float(row["accuracy"]) for row in look] for look in looks]
        control = method in CONTROLS
        color = CONTROLS[method] if control else colors.get((method, profile))
        label = method if control else f"{method}, {profile}"
        style = "--" if control else "-"
        axis.plot(seconds, [mean(s) for s in scores], style, color=color, label=label, marker=".")
        axis.fill_between(
            seconds,
            [min(s) for s in scores],
            [max(s) for s in scores],
            color=color,
            alpha=0.15,
            lw=0,
        )
    axis.set_xlabel("CPU minutes")
    axis.set_ylim(0, 100)
    axis.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))


def over_bytes(axis: Axes, rows: list[Row], method: str) -> None:
    """A point for each sidecar, with its name; real data as a line above."""
    for row in rows:
        score = 100 * float(row["accuracy_mean"])
        if row["method"] != method:
            axis.axhline(score, color="black", ls="--", lw=1, label="real data")
            continue
        size = int(row["sidecar_bytes"]) / 1e3
        low, high = (100 * float(row[f"accuracy_{end}"]) for end in ("lowest", "highest"))
        axis.errorbar(size, score, [[score - low], [high - score]], fmt="o", color=COLORS[0])
        axis.annotate(row["profile"], (size, score), (5, 4), textcoords="offset points", fontsize=8)
    axis.set_xscale("log")
    axis.set_xlabel("sidecar, KB")
    if axis.get_legend_handles_labels()[0]:
        axis.legend(fontsize=8, frameon=False)


if __name__ == "__main__":
    main()
