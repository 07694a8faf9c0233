"""Worker processes answer, fail in words, and never outlive the bench."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dfkd_meta.bench.run import Bench
from dfkd_meta.bench.tasks import Answer, CellTask
from dfkd_meta.bench.workers import Workers, threads_per_run
from dfkd_meta.consumer.pipeline import DistillConfig
from dfkd_meta.errors import UsageError


def task_for(folder: str, place: Path, **settings: object) -> CellTask:
    return CellTask(
        teacher=folder,
        config=DistillConfig.model_validate(settings),
        test="absent",
        place=str(place),
        device="cpu",
        threads=1,
    )


def test_a_refusal_an_error_and_a_crash(bench: Bench, tmp_path: Path) -> None:
    """One process each: a method without its records, data that are not there, a wrong file."""
    folder = bench.places.environment["TEACHER"]
    with Workers(1, bench.places.environment) as workers:
        place = tmp_path / "refused"
        broken = {"optimizer": "sgd", "learning_rate": 1e30, "steps": 30, "batch_size": 8}
        options = {"drawn_batch": 9}
        task = task_for(folder, place, training=broken, options=options)
        task = task.model_copy(update={"test": str(tmp_path / "blobs.npz")})
        refused = workers.do(task, place)
        assert refused.status == "refused"
        assert "loss became" in str(refused.reason)
        place = tmp_path / "failed"
        failed = workers.do(task_for(str(tmp_path), place), place)
        assert failed.status == "failed"
        assert str(tmp_path) in str(failed.reason)
        assert not (place / "answer.json").exists()  # it can be tried again
        place = tmp_path / "crashed"
        workers.environment["PYTHONPATH"] = str(tmp_path)
        (tmp_path / "torch.py").write_text("raise SystemExit('no torch today')")
        crashed = workers.do(task_for(folder, place), place)
        assert crashed == Answer(
            status="failed", reason="the process ended with code 1: no torch today"
        )


def test_an_answer_that_was_not_written_down_is_taken(tmp_path: Path) -> None:
    answer = Answer(status="done", facts={"x": 1})
    (tmp_path / "answer.json").write_text(answer.model_dump_json())
    with Workers(1, {}) as workers:
        assert workers.do(task_for("absent", tmp_path), tmp_path) == answer


def test_no_worker_starts_after_the_end(tmp_path: Path) -> None:
    with Workers(1, os.environ) as workers:
        pass
    answer = workers.do(task_for("absent", tmp_path), tmp_path)
    assert answer.status == "failed"
    assert "signal 9" in str(answer.reason)


def test_a_worker_ends_with_its_parent(tmp_path: Path) -> None:
    """The pipe of a worker is closed while it waits for a file that nobody writes."""
    os.mkfifo(tmp_path / "task.json")
    command = [
        sys.executable,
        "-m",
        "dfkd_meta.bench.worker",
        str(tmp_path / "task.json"),
        "answer",
    ]
    process = subprocess.Popen(command, stdin=subprocess.PIPE)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=1)
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(timeout=120) == 1


def test_threads_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert [threads_per_run(jobs, None) for jobs in (1, 2, 3, 8)] == [8, 4, 2, 1]
    assert threads_per_run(4, 2) == 2
    for jobs, threads in ((9, None), (4, 3), (1, 9)):
        with pytest.raises(UsageError, match="8 cores"):
            threads_per_run(jobs, threads)
    environment = Workers(3, {"PATH": "x"}).environment
    assert environment["OMP_NUM_THREADS"] == "3"
    assert environment["PATH"] == "x"
