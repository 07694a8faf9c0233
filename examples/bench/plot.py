"""Pictures of a bench: accuracy over time, and what each record of a sidecar buys.

    python examples/bench/plot.py bench-cifar10 --over time --out time.svg
    python examples/bench/plot.py bench-records --over records --out records.svg

``time`` reads curves.csv (a grid with ``curve = 10``), ``records`` table.csv; both show means over
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
    from matplotlib.figure import SubFigure

matplotlib.use("svg")
matplotlib.rcParams["svg.hashsalt"] = "dfkd-meta"  # the same numbers give the same file
CONTROLS = {"real_data": "black", "noise": "0.6", "scratch": "0.4", "alternative_data": "0.5"}
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c5a2b")  # Okabe-Ito
HIDDEN, BY_CLASS = COLORS[:2]  # of sidecars that do not, and that do describe classes of the input
Row = dict[str, str]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("folder", type=Path, help="what `dfkd-meta bench --out` was given")
    parser.add_argument("--over", choices=["time", "records"], default="time")
    parser.add_argument("--method", default="recorded", help="whose students --over records shows")
    parser.add_argument("--out", type=Path, required=True, help="an .svg file")
    given = parser.parse_args()
    file = given.folder / ("curves.csv" if given.over == "time" else "table.csv")
    if not file.exists():
        parser.error(f"{file} is not there; run `dfkd-meta bench` (with `curve` in its grid) first")
    with file.open(newline="") as handle:
        rows = [r for r in csv.DictReader(handle) if r.get("accuracy") or r.get("accuracy_mean")]
    if given.over == "records":
        rows = [row for row in rows if row["method"] in (given.method, "real_data")]
    if not rows:
        parser.error(f"{file} has nothing to show")
    pairs: dict[tuple[str, ...], list[Row]] = defaultdict(list)
    for row in rows:
        pairs[row["teacher"], row["student"], row["budget"]].append(row)
    from matplotlib import pyplot

    if given.over == "time":
        figure = pyplot.figure(figsize=(6.4 * len(pairs), 4.4), layout="constrained")
        parts = figure.subfigures(1, len(pairs), squeeze=False)[0]
    else:
        heights = [1.2 + 0.2 * len(found) for found in pairs.values()]
        figure = pyplot.figure(figsize=(9, sum(heights)), layout="constrained")
        parts = figure.subfigures(len(pairs), 1, squeeze=False, height_ratios=heights)[:, 0]
    colors = colors_of(rows)
    for part, ((teacher, student, budget), found) in zip(parts, pairs.items(), strict=True):
        if given.over == "time":
            axis = over_time(part, found, colors)
        else:
            axis = over_records(part, found, given.method)
        axis.set_title(f"{teacher} -> {student}, {budget}", fontsize=10)
    figure.savefig(given.out, metadata={"Date": None})
    print(f"wrote {given.out}")


def colors_of(rows: list[Row]) -> dict[tuple[str, str], str]:
    """One color for each method and sidecar, in all panels."""
    known = sorted({(row["method"], row["profile"]) for row in rows})
    return dict(zip((key for key in known if key[0] not in CONTROLS), COLORS, strict=False))


def over_time(part: SubFigure, rows: list[Row], colors: dict[tuple[str, str], str]) -> Axes:
    """A line for each method and sidecar, the best first; controls are dashed."""
    axis = part.subplots()
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
    _plain(axis, "CPU minutes")
    axis.set_ylabel("test accuracy, %")
    axis.set_ylim(0, 100)
    axis.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return axis


def over_records(part: SubFigure, rows: list[Row], method: str) -> Axes:
    """A line for each sidecar, the best first: its student, and what it costs in bytes and privacy.

    KD on real data is a line across. Returns the panel of accuracies.
    """
    panels: list[Axes] = list(part.subplots(1, 3, sharey=True, width_ratios=[3, 1, 1]))
    score, size, tracing = panels
    shown = sorted((row for row in rows if row["method"] == method), key=_percent)
    for place, row in enumerate(shown):
        color = BY_CLASS if row["input_by_class"] == "True" else HIDDEN
        ends = [100 * float(row[f"accuracy_{end}"]) for end in ("lowest", "highest")]
        score.plot(ends, [place, place], color=color, lw=2, alpha=0.4)
        score.plot(_percent(row), place, "o", color=color)
        size.plot(int(row["sidecar_bytes"]) / 1e3, place, "o", color=color)
        tracing.plot(float(row["tracing_strength"]), place, "o", color=color)
    for row in rows:
        if row["method"] != method:
            score.axvline(_percent(row), color="black", ls="--", lw=1, label="KD on real data")
    score.plot([], [], "o", color=BY_CLASS, label="tells of classes or places of the input")
    score.legend(fontsize=8, frameon=False, loc="upper left")
    score.set_yticks(range(len(shown)), [row["profile"] for row in shown], fontsize=8)
    score.set_ylim(-0.7, len(shown) + 1.3)  # room for the legend
    for axis, label in ((size, "sidecar, KB"), (tracing, "tracing strength")):
        axis.set_xscale("log")
        axis.xaxis.set_major_formatter("{x:g}")
        axis.xaxis.set_minor_formatter("")
        axis.tick_params(axis="y", left=False)
        _plain(axis, label)
    _plain(score, "test accuracy, %")
    return score


def _percent(row: Row) -> float:
    return 100 * float(row["accuracy_mean"])


def _plain(axis: Axes, label: str) -> None:
    axis.set_xlabel(label)
    axis.grid(color="0.92")
    axis.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    main()
