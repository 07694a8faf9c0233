"""The table: fixed records give a fixed text, and every number is the one it says it is."""

from __future__ import annotations

import csv
import io
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from dfkd_meta.bench.cells import Run, runs_of
from dfkd_meta.bench.grid import Grid, read_grid
from dfkd_meta.bench.journal import Record
from dfkd_meta.bench.markdown import as_markdown
from dfkd_meta.bench.table import as_csv, curves_as_csv, sections_of
from tests.bench.conftest import facts
from tests.support.golden import check_golden

GOLDEN = Path(__file__).parent / "golden"
GRID = """
title = "A table"
seeds = [0, 1, 2]
[teachers.lenet5]
published = { full = "x" }
test = "mnist"
benchmark = "mnist"
students = ["lenet5_half"]
[teachers.digits]
published = { minimal = "x" }
test = "digits"
[budgets.8min]
cpu_seconds = 480
share = 0.25
[methods.scratch]
options.data = "mnist"
[methods.recorded]
[methods.deep_inversion]
[methods.noise]
[methods.loud_noise]
method = "noise"
options.std = 2.0
[[override]]
teacher = "digits"
method = "scratch"
skip = "its labels | are not public"
"""
SCORES = {"scratch": 0.98, "recorded": 0.97, "noise": 0.35, "loud_noise": 0.2}


def record_of(run: Run, **more: Any) -> Record:
    """A finished run whose numbers follow from its method and seed."""
    seed = run.cell.seed
    record = facts(SCORES[run.cell.method] + seed / 1000, images=10_000 * (seed + 1))
    record["teacher"]["architecture"] = "lenet5" if run.cell.teacher == "lenet5" else "digits_cnn"
    record["result"]["cpu_seconds"] = {"synthesis": 100.0 + seed, "training": 378.5}
    record["notes"] = [f"batch {n}: restarted" for n in range(seed + 3)] if seed else []
    sidecar = {"bytes": 4_812_136 if run.cell.teacher == "lenet5" else 16_384}
    cell = asdict(run.cell)
    return {**record, "status": "done", "cell": cell, "sidecar": sidecar, **more}


def results_of(grid: Grid) -> list[tuple[Run, Record | None]]:
    found: list[tuple[Run, Record | None]] = []
    for run in runs_of(grid):
        if run.cell.method == "deep_inversion":
            refused = {"status": "refused", "reason": "no BatchNorm", "result": {}}
            found.append((run, refused if run.cell.seed < 2 else None))
        elif run.skip or (run.cell.teacher == "digits" and run.cell.seed == 2):
            found.append((run, None))
        else:
            notes = {} if run.cell.method == "recorded" else {"notes": []}
            found.append((run, record_of(run, **notes)))
    return found


@pytest.fixture
def grid(tmp_path: Path) -> Grid:
    (tmp_path / "grid.toml").write_text(GRID)
    return read_grid(tmp_path / "grid.toml")


def test_the_table_is_the_golden_one(grid: Grid) -> None:
    sections = sections_of(grid, results_of(grid))
    check_golden(GOLDEN / "table.md", as_markdown(grid.title, sections))
    check_golden(GOLDEN / "table.csv", as_csv(sections))


def test_numbers_are_means_over_the_seeds(grid: Grid) -> None:
    rows = csv.DictReader(io.StringIO(as_csv(sections_of(grid, results_of(grid)))))
    named = {(row["teacher"], row["method"]): row for row in rows}
    recorded = named["lenet5", "recorded"]
    assert float(recorded["accuracy_mean"]) == pytest.approx(0.971)
    assert float(recorded["accuracy_lowest"]) == pytest.approx(0.97)
    assert float(recorded["accuracy_highest"]) == pytest.approx(0.972)
    assert float(recorded["accuracy_std"]) == pytest.approx(0.001)
    assert float(recorded["cpu_seconds"]) == pytest.approx(479.5)
    assert float(recorded["images"]) == 20_000
    assert recorded["finished"] == "3"
    assert named["digits", "recorded"]["finished"] == "2"
    assert named["lenet5", "scratch"]["published"] == "98.65"
    assert named["digits", "scratch"]["reason"] == "left out: its labels | are not public"
    assert named["lenet5", "deep_inversion"]["accuracy_mean"] == ""


def test_every_line_of_a_markdown_table_is_as_wide_as_the_others(grid: Grid) -> None:
    text = as_markdown(grid.title, sections_of(grid, results_of(grid)))
    for block in text.split("\n\n"):
        lines = [line for line in block.splitlines() if line.startswith("|")]
        assert len({len(line) for line in lines}) <= 1
        columns = {line.replace("\\|", "").count("|") for line in lines}
        assert len(columns) <= 1
    controls = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("|")]
    assert controls.index("**controls**") < controls.index("`noise`")
    assert controls.index("`recorded`") < controls.index("**controls**")


def test_a_table_of_nothing_says_so(grid: Grid) -> None:
    sections = sections_of(grid, [(run, None) for run in runs_of(grid)])
    text = as_markdown(grid.title, sections)
    assert "**27 runs are still to be made.**" in text
    assert "lenet5_half" not in text
    assert "left out" in text  # of the other section a line is settled
    assert "Not run: `recorded`" in text.split("## digits")[1]


def test_sidecars_are_compared_side_by_side(tmp_path: Path) -> None:
    text = GRID.replace('{ full = "x" }', '{ full = "x", minimal = "y" }', 1)
    (tmp_path / "grid.toml").write_text(text)
    grid = read_grid(tmp_path / "grid.toml")
    found = results_of(grid)
    for run, record in found:
        if record and record["status"] == "done" and run.cell.profile == "minimal":
            record["result"]["accuracy"] -= 0.5
            record["teacher"] |= {"tracing_strength": 0.1234, "input_by_class": False}
    shown = as_markdown(grid.title, sections_of(grid, found))
    part = shown.split("## What a sidecar buys: lenet5 -> lenet5_half, 8min")[1]
    rows = [line for line in part.splitlines() if line.startswith("| `")]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert cells[0][:5] == ["`full`", "4.81 MB", "", "", "97.10 (97.00 to 97.20)"]
    assert cells[1][:5] == ["`minimal`", "4.81 MB", "0.12", "no", "47.10 (47.00 to 47.20)"]
    assert "deep_inversion" not in part  # it runs on neither
    assert "What a sidecar buys: digits" not in shown


def test_a_section_names_every_sidecar_that_its_rows_had(grid: Grid) -> None:
    found = results_of(grid)
    for run, record in found:
        if record and run.cell.teacher == "lenet5" and run.cell.method == "noise":
            record["sidecar"] = {"bytes": 23_229}
    sections = sections_of(grid, found)
    assert "sidecar `full`, 4.81 MB or 23.2 KB; budget" in as_markdown(grid.title, sections)
    rows = csv.DictReader(io.StringIO(as_csv(sections)))
    sizes = {row["method"]: row["sidecar_bytes"] for row in rows if row["teacher"] == "lenet5"}
    assert (sizes["recorded"], sizes["noise"]) == ("4812136", "23229")


def test_rows_of_several_machines_say_which(grid: Grid) -> None:
    results = [(run, record_of(run)) for run in runs_of(grid) if run.cell.method in SCORES]
    for run, record in results:
        if run.cell.seed == 2 and run.cell.method == "recorded":
            record["machine"] = {**record["machine"], "processor": "Another CPU"}
    text = as_markdown(grid.title, sections_of(grid, results))
    assert "* a: dfkd-meta 0.1.0, torch 2.13.0, Example CPU, 1 of 8 cores per run\n" in text
    assert "* b: dfkd-meta 0.1.0, torch 2.13.0, Another CPU, 1 of 8 cores per run\n" in text
    rows = [line.split("|") for line in text.splitlines() if line.startswith("| ")]
    place = [cell.strip() for cell in rows[0]].index("on")
    found = {row[1].strip(): row[place].strip() for row in rows}
    assert found["`recorded`"] == "a, b"
    assert found["`noise`"] == "a"


def test_on_a_gpu_its_seconds_are_shown(grid: Grid) -> None:
    found = results_of(grid)
    for _, record in found:
        if record and record["status"] == "done":
            record["machine"] |= {"device": "cuda", "gpu": "NVIDIA H200"}
            record["result"]["peak_gpu_memory_mb"] = 4_321.0
    text = as_markdown(grid.title, sections_of(grid, found))
    assert "| GPU s |" in text
    assert "CPU s" not in text
    assert "| peak GPU MiB |" in text
    assert " 4,321 |" in text
    assert "NVIDIA H200." in text
    assert "wall time" in text


def test_accuracy_on_the_way_is_a_mean_over_seeds(grid: Grid) -> None:
    assert curves_as_csv(sections_of(grid, results_of(grid))) == ""
    found = results_of(grid)
    for run, record in found:
        if record and run.cell.method == "recorded" and record["status"] == "done":
            seed = run.cell.seed
            record["result"]["curve"] = [
                {"steps": 5, "cpu_seconds": 10 + seed, "seconds": 20.0, "accuracy": 0.5},
                {"steps": 10, "cpu_seconds": 20.0, "seconds": 40.0, "accuracy": 0.9 + seed / 100},
            ]
    sections = sections_of(grid, found)
    assert "* `recorded`: 50.0 (11 s), 91.0 (20 s)." in as_markdown(grid.title, sections)
    rows = list(csv.DictReader(io.StringIO(curves_as_csv(sections))))
    assert {row["method"] for row in rows} == {"recorded"}
    assert [row["accuracy"] for row in rows[:4]] == ["0.5", "0.9", "0.5", "0.91"]


def test_what_failed_is_still_to_be_made(grid: Grid) -> None:
    failed = {"status": "failed", "reason": "killed", "result": {}}
    results = [
        (run, {**failed, "cell": asdict(run.cell)} if run.cell.seed == 0 else None)
        for run in runs_of(grid)
    ]
    made = sum(not run.skip for run, _ in results)
    assert f"**{made} runs are still to be made.**" in as_markdown("t", sections_of(grid, results))
