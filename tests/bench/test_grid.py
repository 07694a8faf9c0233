"""Grid files: what they mean, and what is said about wrong ones."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dfkd_meta.bench.cells import runs_of
from dfkd_meta.bench.grid import profiles_of, read_grid
from dfkd_meta.bench.places import Places
from dfkd_meta.errors import UsageError

MADE = """
[teachers.one]
model = "digits_cnn"
data = "digits"
train = { training = { steps = 600 } }
"""
TWO = """
seeds = [3, 3, 4]
students = ["half", "0.25"]
profiles = ["minimal", "full"]
[defaults]
images = 100
training = { steps = 10, batch_size = 64 }
[teachers.one]
model = "digits_cnn"
data = "digits"
train = {}
[teachers.two]
published = { full = "some/where", standard = "user/repo" }
test = "digits"
profiles = ["standard"]
students = ["lenet5"]
[budgets.short]
training = { steps = 20 }
[budgets.long]
cpu_seconds = 60
[methods.recorded]
[methods.slow]
method = "recorded"
options = { steps = 40 }
training = { batch_size = 32, steps = 5 }
profiles = ["full", "standard"]
budgets = ["short"]
[methods.real_data]
teachers = ["one"]
[[override]]
method = ["slow", "recorded"]
teacher = "two"
training = { temperature = 2.0 }
[[override]]
method = "recorded"
teacher = "two"
training = { temperature = 3.0 }
[[override]]
student = "0.25"
budget = "long"
skip = "too small to need it"
"""


def grid_of(text: str, folder: Path) -> Path:
    file = folder / "grid.toml"
    file.write_text(text)
    return file


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"'teachers'.*required"),
        ("seeds = [", "not TOML"),
        (MADE, r"'methods'.*required"),
        (MADE + "[methods]", "'methods'.*at least 1"),
        ("seeds = []" + MADE + "[methods.noise]", "'seeds'.*at least 1"),
        ("seeds = [-1]" + MADE + "[methods.noise]", "'seeds.0'.*greater than or equal to 0"),
        ("sead = 1" + MADE + "[methods.noise]", "no key 'sead'"),
        (MADE + "wait = 1\n[methods.noise]", "no key 'teachers.one.wait'"),
        (MADE + "[methods.noise]\nset = 1", "no key 'methods.noise.set'"),
        (MADE + "export = { limitt = 1 }\n[methods.noise]", "no key 'teachers.one.export.limitt'"),
        (MADE + "[methods.'a b']", r"methods.a b.*pattern"),
        (MADE + "[methods.nose]", "no method named 'nose'"),
        (MADE + "[methods.noise]\noptions = { sdt = 1 }", "no option 'sdt'"),
        (MADE + "[methods.noise]\ntraining = { step = 1 }", "no option 'training.step'"),
        (MADE + "[methods.noise]\nimages = 0", "'methods.noise.images'.*greater than 0"),
        (MADE + "[methods.noise]\nteachers = ['two']", "methods.noise.teachers.*no 'two'"),
        (MADE + "[methods.noise]\nbudgets = ['two']", "methods.noise.budgets.*no 'two'"),
        (MADE + "[methods.noise]\nprofiles = ['two']", "methods.noise.profiles.*no 'two'"),
        (MADE + "[methods.noise]\n[[override]]\nmethod = 'x'", "override.0.method.*no 'x'"),
        (MADE + "[methods.noise]\n[[override]]\nstudent = ['x']", "override.0.student.*no 'x'"),
        (MADE + "[methods.noise]\n[budgets.b]\ncpu_seconds = 0", "'budgets.b.cpu_seconds'"),
        (MADE + "[methods.noise]\n[budgets.b]\nmethods = ['x']", "budgets.b.methods.*no 'x'"),
        (MADE + "[methods.noise]\n[budgets.b]\ncpu_seconds = 1\nimages = 2", "budgets.b.*not both"),
        (MADE.replace("train = {", "train = { sted = 1,") + "[methods.noise]", "no option 'sted'"),
        (MADE.replace('data = "digits"', "") + "[methods.noise]", "teachers.one.data"),
        (MADE + 'weights = "w"\n[methods.noise]', "teachers.one.*not both"),
        (MADE + 'published = "w"\n[methods.noise]', "teachers.one.*either"),
        ("[teachers.t]\ndata = 'digits'\n[methods.noise]", "teachers.t.*either"),
        ("[teachers.t]\npublished = 'x'\n[methods.noise]", "teachers.t.test"),
        (MADE + "profiles = ['huge']\n[methods.noise]", "teachers.one.profiles.*no 'huge'"),
        (
            "[teachers.t]\npublished = { a = 'x' }\nprofiles = ['b']\ndata = 'd'\n[methods.noise]",
            "teachers.t.profiles",
        ),
        (
            "[teachers.t]\npublished = { a = 'x' }\nprofiles = ['a', 'b']\ndata = 'd'\n"
            "[methods.noise]",
            "teachers.t.profiles.*no 'b'",
        ),
        (
            "[teachers.t]\npublished = 'x'\nprofiles = ['full']\ndata = 'd'\n[methods.noise]",
            "teachers.t.profiles.*one sidecar",
        ),
    ],
)  # fmt: skip
def test_a_wrong_grid_names_the_key(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        runs_of(read_grid(grid_of(text, tmp_path)))
    assert re.search(message, caught.value.message, re.DOTALL), caught.value.message
    assert caught.value.where


def test_an_unknown_key_is_told_the_ones_of_its_own_table(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        read_grid(grid_of(MADE + "[methods.noise]\n[budgets.b]\nseconds = 1", tmp_path))
    assert caught.value.hint is not None
    assert "cpu_seconds" in caught.value.hint
    assert "override" not in caught.value.hint


def test_an_absent_grid(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read the grid"):
        read_grid(tmp_path / "grid.toml")


def test_the_runs_are_the_product_of_the_axes(tmp_path: Path) -> None:
    grid = read_grid(grid_of(TWO, tmp_path))
    cells = [run.cell for run in runs_of(grid)]
    assert len(set(cells)) == len(cells)
    # one: 2 students x (minimal: recorded 2, real 2; full: recorded 2, slow 1, real 2); two: 3
    assert len(cells) == 2 * (2 * (4 + 5) + 3)
    assert [cell.seed for cell in cells] == sorted(cell.seed for cell in cells)
    assert {cell.profile for cell in cells if cell.teacher == "two"} == {"standard"}
    assert not [c for c in cells if c.method == "slow" and (c.budget == "long")]
    assert profiles_of(grid, "two") == ["standard"]


def test_profiles_for_all_teachers_hold_for_published_ones(tmp_path: Path) -> None:
    text = """profiles = ["minimal"]
[teachers.t]
published = { full = "a", minimal = "b" }
test = "digits"
[methods.noise]
"""
    assert {run.cell.profile for run in runs_of(read_grid(grid_of(text, tmp_path)))} == {"minimal"}
    everywhere = text.replace('profiles = ["minimal"]\n', "")
    found = {run.cell.profile for run in runs_of(read_grid(grid_of(everywhere, tmp_path)))}
    assert found == {"full", "minimal"}


def test_a_budget_may_be_for_some_teachers_and_methods_only(tmp_path: Path) -> None:
    grid = read_grid(grid_of(TWO, tmp_path))
    long = grid.budgets["long"].model_copy(update={"methods": ["recorded"], "teachers": ["one"]})
    grid = grid.model_copy(update={"budgets": {**grid.budgets, "long": long}})
    cells = [run.cell for run in runs_of(grid) if run.cell.budget == "long"]
    assert cells
    assert {(cell.teacher, cell.method) for cell in cells} == {("one", "recorded")}


def test_later_layers_win_key_by_key(tmp_path: Path) -> None:
    runs = runs_of(read_grid(grid_of(TWO, tmp_path)))
    told = {
        (run.cell.teacher, run.cell.method, run.cell.budget): run.config
        for run in runs
        if run.cell.student != "0.25"
    }
    slow = told["one", "slow", "short"]
    assert slow.method == "recorded"
    assert slow.options == {"steps": 40}
    assert slow.images == 100
    assert (slow.training.steps, slow.training.batch_size) == (20, 32)  # budget, row
    assert slow.training.temperature == 4.0  # the default of training itself
    assert told["two", "slow", "short"].training.temperature == 2.0
    assert told["two", "recorded", "short"].training.temperature == 3.0
    assert told["one", "recorded", "long"].training.steps == 10


def test_controls_on_data_take_those_of_the_teacher(tmp_path: Path) -> None:
    runs = runs_of(read_grid(grid_of(TWO, tmp_path)))
    assert {r.config.options["data"] for r in runs if r.cell.method == "real_data"} == {"digits"}
    named = TWO.replace("[methods.real_data]\n", "[methods.real_data]\noptions.data = 'usps'\n")
    runs = runs_of(read_grid(grid_of(named, tmp_path)))
    assert {r.config.options["data"] for r in runs if r.cell.method == "real_data"} == {"usps"}


def test_skipped_runs_say_why(tmp_path: Path) -> None:
    skipped = [run for run in runs_of(read_grid(grid_of(TWO, tmp_path))) if run.skip]
    assert {run.skip for run in skipped} == {"too small to need it"}
    assert {(run.cell.student, run.cell.budget) for run in skipped} == {("0.25", "long")}


def test_only_keeps_what_matches_every_axis(tmp_path: Path) -> None:
    grid = read_grid(grid_of(TWO, tmp_path))
    kept = runs_of(grid, ["method=re*", "seed=4", "teacher=one", "teacher=two"])
    assert {run.cell.method for run in kept} == {"recorded", "real_data"}
    assert {run.cell.seed for run in kept} == {4}
    assert {run.cell.teacher for run in kept} == {"one", "two"}
    with pytest.raises(UsageError, match="axis=pattern") as caught:
        runs_of(grid, ["recorded"])
    assert "budget" in str(caught.value.hint)


def test_texts_stand_for_places_of_this_machine(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    places = Places(tmp_path, {"HOME_OF_DATA": "/d", "EMPTY": ""})
    assert places.expand("${HOME_OF_DATA}/mnist", "data") == "/d/mnist"
    assert places.expand("here", "data") == str(tmp_path / "here")
    assert places.expand("here#train", "test") == str(tmp_path / "here") + "#train"
    assert places.expand("here", "title") == "here"
    assert places.expand("user/repo", "published") == "user/repo"
    nested = {"data": "here", "steps": 3, "list": ["${HOME_OF_DATA}"]}
    found = places.expand(nested)
    assert found == {"data": str(tmp_path / "here"), "steps": 3, "list": ["/d"]}
    for name in ("EMPTY", "ABSENT"):
        with pytest.raises(UsageError, match=name):
            places.expand(f"${{{name}}}/x", "data")
