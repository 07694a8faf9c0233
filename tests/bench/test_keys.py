"""What a result is filed under: all that decides it, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from dfkd_meta.bench.cells import Run, result_key, runs_of
from dfkd_meta.bench.grid import read_grid

TEXT = """
seeds = [0]
[teachers.one]
published = "x"
data = "${HOME}/digits"
[budgets.b]
images = 10
[methods.noise]
"""
CIRCUMSTANCES = {"sidecar": "0" * 16, "test": "digits", "device": "cpu", "package": "1.0"}


def run_of(text: str, folder: Path) -> Run:
    (folder / "grid.toml").write_text(text)
    return runs_of(read_grid(folder / "grid.toml"))[0]


def key_of(text: str, folder: Path) -> str:
    return result_key(run_of(text, folder), **CIRCUMSTANCES)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("teachers.one", "teachers.another"),
        ("budgets.b", "budgets.c"),
        ("[methods.noise]", "[methods.n]\nmethod = 'noise'"),
        ("images = 10", "training = {}\nshare = 0.3\nimages = 10"),  # a share of no time
        ("seeds = [0]", "seeds = [0, 1]\ntitle = 'x'\nthreads = 1"),
        ("[methods.noise]", "[methods.noise]\nimages = 10"),
        ("[methods.noise]", "[methods.noise]\n[methods.recorded]"),
    ],
)
def test_names_and_neighbors_do_not_count(old: str, new: str, tmp_path: Path) -> None:
    assert key_of(TEXT, tmp_path) == key_of(TEXT.replace(old, new), tmp_path)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("seeds = [0]", "seeds = [1]"),
        ("seeds = [0]", "seeds = [0]\nstudents = ['quarter']"),
        ("images = 10", "images = 11"),
        ("images = 10", "training = { steps = 7 }\nimages = 10"),
        ("images = 10", "cpu_seconds = 10"),
        ("[methods.noise]", "[methods.noise]\noptions = { std = 2.0 }"),
        ("[methods.noise]", "[methods.recorded]"),
        ("[methods.noise]", "[methods.noise]\nterms = { bn = { weight = 3 } }"),
    ],
)
def test_every_setting_counts(old: str, new: str, tmp_path: Path) -> None:
    assert key_of(TEXT, tmp_path) != key_of(TEXT.replace(old, new), tmp_path)


@pytest.mark.parametrize("name", CIRCUMSTANCES)
def test_every_circumstance_counts(name: str, tmp_path: Path) -> None:
    run = run_of(TEXT, tmp_path)
    changed = {**CIRCUMSTANCES, name: "other"}
    assert result_key(run, **changed) != result_key(run, **CIRCUMSTANCES)


def test_time_and_share_count_where_time_is_the_budget(tmp_path: Path) -> None:
    timed = [
        key_of(TEXT.replace("images = 10", words), tmp_path)
        for words in ("cpu_seconds = 10", "cpu_seconds = 20", "cpu_seconds = 10\nshare = 0.2")
    ]
    assert len(set(timed)) == 3


def test_paths_count_as_typed(tmp_path: Path) -> None:
    text = TEXT.replace("noise", "real_data")
    assert run_of(text, tmp_path).config.options == {"data": "${HOME}/digits"}
