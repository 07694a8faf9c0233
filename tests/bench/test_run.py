"""A grid makes what it lacks, once, and goes on after anything."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import save_file

from dfkd_meta.bench.grid import TeacherEntry, read_grid
from dfkd_meta.bench.journal import append_record, read_journal
from dfkd_meta.bench.places import Places
from dfkd_meta.bench.run import Bench, duration, results, run_grid
from dfkd_meta.bench.tasks import Answer
from dfkd_meta.errors import DfkdMetaError, UsageError
from dfkd_meta.sidecar import read_sidecar
from dfkd_meta.teachers import teacher_from_sidecar
from tests.bench.conftest import FakeWorkers, changed, facts, own_net
from tests.support.small_recipes import write_blobs
from tests.support.told import Told

OWN = """
[teachers.own]
model = "tests.bench.conftest:own_net"
weights = "own.safetensors"
data = "blobs.npz"
profiles = ["minimal"]
[teachers.own.export]
num_classes = 3
inputs = { shape = [1, 8, 8], value_range = [0, 1], mean = [0.3], std = [0.3] }
[methods.noise]
"""
ALL = [(method, seed) for seed in (0, 1) for method in ("recorded", "noise", "scratch")]


def test_each_run_is_made_once(bench: Bench, fake_workers: FakeWorkers) -> None:
    told = Told()
    made = run_grid(replace(bench, progress=told))
    assert fake_workers.methods == ALL
    assert [record["status"] for record in made] == ["done"] * 6
    assert run_grid(bench) == []
    assert fake_workers.methods == ALL
    assert fake_workers.teachers_made == 1
    assert told.steps[-1].startswith("[6/6, about 0 s left] blobs -> half, scratch")
    assert "60.00 % in 2 CPU s" in told.steps[-1]


def test_a_record_holds_what_was_asked_and_what_came_of_it(
    bench: Bench, fake_workers: FakeWorkers
) -> None:
    run_grid(bench, ["method=scratch", "seed=1"])
    (record,) = read_journal(bench.journal).values()
    assert record["cell"] == {
        "teacher": "blobs", "student": "half", "method": "scratch", "profile": "full",
        "budget": "tiny", "seed": 1,
    }  # fmt: skip
    assert record["config"]["options"] == {"data": "blobs.npz"}  # as typed: no path of this machine
    assert record["config"]["training"]["batch_size"] == 32
    assert record["config"]["training"]["steps"] == 6
    assert record["budget"] == {"images": 40, "training": {"steps": 6, "batch_size": 32}}
    assert record["result"]["accuracy"] == 0.6
    folder = Path(bench.places.environment["TEACHER"])
    names = ("dfkd_meta.json", "dfkd_meta.safetensors")
    assert record["sidecar"]["bytes"] == sum((folder / name).stat().st_size for name in names)
    assert str(bench.out) not in json.dumps(record)
    (task,) = fake_workers.done
    assert task.config.options == {"data": str(bench.places.folder / "blobs.npz")}
    assert task.test == str(bench.places.folder / "blobs.npz")


def test_a_teacher_of_ones_own_code_is_opened_by_it_again(
    tmp_path: Path, fake_workers: FakeWorkers
) -> None:
    write_blobs(tmp_path)
    save_file(own_net(3).state_dict(), tmp_path / "own.safetensors")
    (tmp_path / "grid.toml").write_text(OWN)
    grid = read_grid(tmp_path / "grid.toml")
    run_grid(Bench(grid, tmp_path / "out", Places(tmp_path, {})))
    (task,) = fake_workers.done
    sidecar = read_sidecar(Path(task.teacher))
    assert sidecar.manifest.teacher.source == "local"
    assert teacher_from_sidecar(Path(task.teacher), sidecar, factory=task.factory)
    named = {"published": "user/teacher", "export": {"factory": "nets:other"}}
    assert TeacherEntry.model_validate(named).factory == "nets:other"


def test_an_edit_makes_only_what_it_changes(
    bench: Bench, fake_workers: FakeWorkers, grid_file: Path
) -> None:
    run_grid(bench)
    fake_workers.done.clear()
    edited = changed(bench, grid_file, "[methods.noise]\n", "[methods.noise]\noptions.std = 2.0\n")
    run_grid(edited)
    assert fake_workers.methods == [("noise", 0), ("noise", 1)]
    fake_workers.done.clear()
    run_grid(changed(edited, grid_file, "[methods.noise]", "[methods.loud]\nmethod = 'noise'"))
    assert fake_workers.methods == []
    run_grid(changed(edited, grid_file, "seeds = [0, 1]", "seeds = [1, 2]"))
    assert fake_workers.methods == [("recorded", 2), ("noise", 2), ("scratch", 2)]
    shown = [record for _, record in results(edited) if record]
    assert len(shown) == 6  # seeds 0 and 1, as ``edited`` still asks for


def test_two_rows_that_are_the_same_share_a_result(
    bench: Bench, fake_workers: FakeWorkers, grid_file: Path
) -> None:
    same = changed(
        bench, grid_file, "[methods.noise]", "[methods.n]\nmethod='noise'\n[methods.noise]"
    )
    run_grid(same)
    assert fake_workers.methods == ALL
    assert all(record for _, record in results(same))


def test_a_refusal_is_a_result_and_a_failure_is_not(
    bench: Bench, fake_workers: FakeWorkers
) -> None:
    fake_workers.answers = {
        "noise": Answer(status="refused", reason="no BatchNorm here"),
        "scratch": Answer(status="failed", reason="the disk is full"),
    }
    told = Told()
    made = run_grid(replace(bench, progress=told))
    assert sorted(record["status"] for record in made) == sorted(["done", "refused", "failed"] * 2)
    assert any("failed: the disk is full" in step for step in told.steps)
    fake_workers.answers.clear()
    fake_workers.done.clear()
    run_grid(bench)
    assert fake_workers.methods == [("scratch", 0), ("scratch", 1)]
    statuses = {(run.cell.method, record and record["status"]) for run, record in results(bench)}
    assert statuses == {("recorded", "done"), ("noise", "refused"), ("scratch", "done")}


def test_an_interrupt_loses_nothing_that_was_written(
    bench: Bench, fake_workers: FakeWorkers
) -> None:
    def written_first() -> None:
        deadline = time.monotonic() + 60
        while not (bench.journal.exists() and bench.journal.read_bytes().endswith(b"\n")):
            assert time.monotonic() < deadline
            time.sleep(0.01)

    fake_workers.answers = {"scratch": KeyboardInterrupt}
    fake_workers.before = {"scratch": written_first}
    with pytest.raises(KeyboardInterrupt):
        run_grid(bench)
    written = read_journal(bench.journal)
    methods = {record["cell"]["method"] for record in written.values()}
    assert methods
    assert methods <= {"recorded", "noise"}
    fake_workers.answers.clear()
    made = run_grid(bench)
    assert len(made) + len(written) == 6


def test_a_torn_line_costs_one_run(bench: Bench, fake_workers: FakeWorkers) -> None:
    run_grid(bench)
    content = bench.journal.read_bytes()
    bench.journal.write_bytes(content[:-30])
    fake_workers.done.clear()
    told = Told()
    run_grid(replace(bench, progress=told))
    assert len(fake_workers.done) == 1
    assert any("torn" in step for step in told.steps)
    assert len(bench.journal.read_bytes().splitlines()) == 6
    assert all(record for _, record in results(bench))


def test_the_folder_can_move(bench: Bench, fake_workers: FakeWorkers, tmp_path: Path) -> None:
    run_grid(bench)
    bench.out.rename(tmp_path / "moved")
    fake_workers.done.clear()
    assert run_grid(replace(bench, out=tmp_path / "moved")) == []
    assert fake_workers.methods == []


def test_a_device_has_results_of_its_own(bench: Bench, fake_workers: FakeWorkers) -> None:
    run_grid(bench, ["method=noise"])
    run_grid(replace(bench, device="cuda:0"), ["method=noise"])
    run_grid(replace(bench, device="cuda:1"), ["method=noise"])
    assert [task.device for task in fake_workers.done] == ["cpu"] * 2 + ["cuda:0"] * 2


def test_results_of_the_other_kind_of_device_are_shown(
    bench: Bench, fake_workers: FakeWorkers
) -> None:
    """A table asks for no device: on a machine with a GPU it shows what was made on the CPU."""
    run_grid(bench, ["method=noise"])
    for device in ("cpu", "cuda:0"):
        found = results(replace(bench, device=device))
        assert {run.cell.method for run, record in found if record} == {"noise"}
    fake_workers.answers = {"noise": Answer(status="done", facts=facts(0.9))}
    run_grid(replace(bench, device="cuda"), ["method=noise"])
    for device, best in (("cpu", 0.6), ("cuda", 0.9)):
        shown = [record for _, record in results(replace(bench, device=device)) if record]
        assert max(record["result"]["accuracy"] for record in shown) == best


def test_what_is_left_out_is_not_run(
    bench: Bench, fake_workers: FakeWorkers, grid_file: Path
) -> None:
    rule = '[[override]]\nmethod = "noise"\nskip = "known"\n'
    run_grid(changed(bench, grid_file, "[methods.scratch]\n", "[methods.scratch]\n" + rule))
    assert fake_workers.methods == [pair for pair in ALL if pair[0] != "noise"]
    with pytest.raises(UsageError, match="nothing to run"):
        run_grid(bench, ["seed=7"])


def test_seconds_go_to_the_worker(bench: Bench, fake_workers: FakeWorkers, grid_file: Path) -> None:
    assert bench.grid.budgets["tiny"].cpu_seconds is None
    timed = changed(
        bench, grid_file, "images = 40\ntraining = { steps = 6, batch_size = 32 }",
        "cpu_seconds = 9\nshare = 0.3",
    )  # fmt: skip
    fake_workers.answers = {
        "noise": Answer(
            status="done",
            facts={
                **facts(0.5),
                "counts": {"images": None, "turn": 9, "steps": 77, "batch_size": 69},
            },
        )
    }
    run_grid(timed, ["method=noise", "seed=0"])
    (task,) = fake_workers.done
    assert (task.cpu_seconds, task.share) == (9.0, 0.3)
    (record,) = read_journal(bench.journal).values()
    assert record["config"]["options"]["batch_size"] == 69
    assert record["config"]["training"]["steps"] == 77  # repeating these counts repeats the result
    assert record["config"]["images"] is None
    assert record["config"]["turn"] == 9
    assert record["budget"] == {"cpu_seconds": 9.0, "share": 0.3}


def test_a_missing_variable_is_named_before_anything_runs(
    bench: Bench, fake_workers: FakeWorkers
) -> None:
    bare = replace(bench, places=Places(bench.places.folder, {}))
    with pytest.raises(UsageError, match="TEACHER"):
        run_grid(bare)
    assert fake_workers.done == []


def test_more_threads_than_cores(bench: Bench, fake_workers: FakeWorkers) -> None:
    with pytest.raises(UsageError, match="cores"):
        run_grid(replace(bench, jobs=10_000))
    assert not bench.out.exists()


def test_a_teacher_that_cannot_be_made_stops_the_bench(
    bench: Bench, fake_workers: FakeWorkers, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse = Answer(status="failed", reason="no such folder")
    monkeypatch.setattr(fake_workers, "do", lambda task, place: refuse)
    with pytest.raises(DfkdMetaError, match="blobs, profile full: no such folder"):
        run_grid(bench)


def test_the_exit_code_is_that_of_the_error_in_the_worker(bench: Bench, grid_file: Path) -> None:
    gone = changed(bench, grid_file, "${TEACHER}", "./gone")
    with pytest.raises(DfkdMetaError, match="give a folder that exists") as caught:
        run_grid(gone)
    assert caught.value.exit_code == UsageError.exit_code != DfkdMetaError.exit_code


def test_results_of_a_journal_with_other_runs(bench: Bench, fake_workers: FakeWorkers) -> None:
    run_grid(bench, ["method=noise"])
    other = next(record for _, record in results(bench) if record is not None)
    append_record(bench.journal, {**other, "key": "of another grid"})
    assert sum(record is not None for _, record in results(bench)) == 2


def test_results_are_shown_where_a_variable_is_not_set(
    bench: Bench, fake_workers: FakeWorkers, grid_file: Path
) -> None:
    run_grid(bench, ["method=noise"])
    made_here = 'model = "digits_cnn"\nweights = "${NOT_SET}"\nprofiles = ["full"]'
    told = Told()
    other = changed(bench, grid_file, 'published = { full = "${TEACHER}" }', made_here)
    found = results(replace(other, progress=told))
    assert {run.cell.method for run, record in found if record} == {"noise"}
    assert any("2 results are of teachers that are not here" in step for step in told.steps)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (89, "89 s"), (90, "2 min"), (3600, "60 min"), (9000, "2.5 h")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
