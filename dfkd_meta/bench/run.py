"""Make what a grid lacks, one process per run, and write down each result as it comes."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from dfkd_meta.bench.cells import Run, result_key, runs_of, timed
from dfkd_meta.bench.grid import Grid
from dfkd_meta.bench.journal import (
    Record,
    append_record,
    costs_of,
    only_one,
    read_journal,
    repair_journal,
    unfinished,
)
from dfkd_meta.bench.places import Places
from dfkd_meta.bench.tasks import Answer, CellTask, TeacherTask, WorkerError
from dfkd_meta.bench.teachers import ReadyTeacher, Teachers
from dfkd_meta.bench.workers import Workers, threads_per_run
from dfkd_meta.errors import DfkdMetaError, UsageError
from dfkd_meta.machine import versions
from dfkd_meta.progress import Progress, Silent


@dataclass(frozen=True)
class Bench:
    """A grid at work in the folder ``out``; ``device`` is what torch calls it, e.g. cpu, cuda:0."""

    grid: Grid
    out: Path
    places: Places
    device: str = "cpu"
    jobs: int = 1
    progress: Progress = field(default_factory=Silent)

    @property
    def journal(self) -> Path:
        return self.out / "results.jsonl"

    @property
    def teachers(self) -> Teachers:
        return Teachers(self.grid, self.out, self.places)


@dataclass(frozen=True)
class Job:
    """A run with its teacher at hand: ``key`` files its result, ``place`` is its folder.

    ``elsewhere`` is the key that its result has from the other kind of device.
    """

    run: Run
    teacher: ReadyTeacher
    key: str
    place: Path
    elsewhere: str


def results(bench: Bench) -> list[tuple[Run, Record | None]]:
    """Every run of the grid with what the journal says of it.

    Where the other kind of device alone has a result, that is it. Where a teacher is not at hand,
    so that nothing can be compared with it, it is the latest result under the names of the run.
    """
    records = read_journal(bench.journal)
    by_name = {json.dumps(record["cell"], sort_keys=True): record for record in records.values()}
    runs = runs_of(bench.grid)
    jobs = {job.run.cell: job for job in _jobs(bench, runs)}
    found, unsure = [], 0
    for run in runs:
        if run.cell in jobs:
            job = jobs[run.cell]
            record = records.get(job.key) or records.get(job.elsewhere)
        else:
            record = by_name.get(json.dumps(asdict(run.cell), sort_keys=True))
            unsure += record is not None
        found.append((run, record))
    if unsure:
        bench.progress.warn(
            f"{unsure} results are of teachers that are not here: whether they belong to this grid "
            "as it is now cannot be told"
        )
    return found


def run_grid(bench: Bench, only: Sequence[str] = ()) -> list[Record]:
    """Make every run (of ``only``) that has no result yet; returns the records that were added.

    A run that failed before is tried again; one whose method refused is not. When the process is
    killed or interrupted, the next call goes on where it stopped. Raises UsageError, and
    DfkdMetaError when a teacher cannot be made.
    """
    runs = [run for run in runs_of(bench.grid, only) if run.skip is None]
    if not runs:
        raise UsageError("there is nothing to run", hint="look at --only and at 'skip'")
    threads = threads_per_run(bench.jobs, bench.grid.threads)
    try:
        bench.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UsageError(f"cannot write there: {reason}", where=str(bench.out)) from error
    with only_one(bench.out), Workers(threads, bench.places.environment) as workers:
        if repair_journal(bench.journal):
            bench.progress.step("the last line of the journal was torn; its run is made again")
        _make_teachers(bench, runs, workers, threads)
        jobs = {job.key: job for job in reversed(_jobs(bench, runs))}
        known = read_journal(bench.journal)
        todo = [job for key, job in reversed(jobs.items()) if unfinished(known.get(key))]
        count = f"{len(jobs) - len(todo)} of {len(jobs)} runs are done"
        bench.progress.step(f"{count}, {len(todo)} to make")
        return _make_runs(bench, todo, workers, threads)


def _make_teachers(bench: Bench, runs: Sequence[Run], workers: Workers, threads: int) -> None:
    for name, profile in dict.fromkeys((run.cell.teacher, run.cell.profile) for run in runs):
        if bench.teachers.find(name, profile) is not None:
            continue
        bench.progress.step(f"making teacher {name} ready, sidecar {profile}")
        task = TeacherTask(
            grid=bench.grid,
            folder=str(bench.places.folder),
            out=str(bench.out),
            name=name,
            profile=profile,
            device=bench.device,
            threads=threads,
        )
        place = bench.out / "runs" / f"teacher-{name}-{profile}"
        shutil.rmtree(place, ignore_errors=True)
        answer = workers.do(task, place)
        if answer.status != "done":
            raise WorkerError(f"teacher {name}, profile {profile}: {answer.reason}", answer)
        shutil.rmtree(place, ignore_errors=True)
        if bench.teachers.find(name, profile) is None:
            raise DfkdMetaError(f"teacher {name}, profile {profile}, changed while it was made")


def _jobs(bench: Bench, runs: Sequence[Run]) -> list[Job]:
    """The runs whose teacher is ready; each teacher is looked at once."""
    teachers = {}
    for pair in {(run.cell.teacher, run.cell.profile) for run in runs}:
        with suppress(UsageError):  # a variable is not set: nobody can say what it was made from
            teachers[pair] = bench.teachers.find(*pair)
    found = [(run, teachers.get((run.cell.teacher, run.cell.profile))) for run in runs]
    return [_job(bench, run, teacher) for run, teacher in found if teacher is not None]


def _job(bench: Bench, run: Run, teacher: ReadyTeacher) -> Job:
    entry = bench.grid.teachers[run.cell.teacher]
    here = bench.device.split(":")[0]
    key, elsewhere = (
        result_key(
            run,
            sidecar=teacher.digest,
            test=str(entry.test or entry.data),
            device=device,
            package=versions()["dfkd_meta"],
        )
        for device in (here, "cpu" if here == "cuda" else "cuda")
    )
    return Job(run, teacher, key, bench.out / "runs" / f"{run.config.method}-{key}", elsewhere)


def _make_runs(bench: Bench, jobs: Sequence[Job], workers: Workers, threads: int) -> list[Record]:
    made: list[Record] = []
    started = time.monotonic()
    with ThreadPoolExecutor(bench.jobs) as pool:
        futures = {
            pool.submit(workers.do, _task(bench, job, threads), job.place): job for job in jobs
        }
        try:
            for future in as_completed(futures):
                job, answer = futures[future], future.result()
                record = _record(job, answer)
                append_record(bench.journal, record)
                if answer.status != "failed":
                    shutil.rmtree(job.place, ignore_errors=True)
                made.append(record)
                left = (time.monotonic() - started) / len(made) * (len(jobs) - len(made))
                ahead = f"{len(made)}/{len(jobs)}, about {duration(left)} left"
                bench.progress.step(f"[{ahead}] {_line(job.run, record)}")
        except BaseException:  # an interrupt above all: nothing must wait for the runs under way
            pool.shutdown(wait=False, cancel_futures=True)
            workers.stop()
            raise
    return made


def _task(bench: Bench, job: Job, threads: int) -> CellTask:
    entry, run = bench.grid.teachers[job.run.cell.teacher], job.run
    options = bench.places.expand(run.config.options)
    return CellTask(
        teacher=str(bench.out / job.teacher.folder),
        factory=entry.factory,
        config=run.config.model_copy(update={"options": options}),
        test=bench.places.expand(entry.test or entry.data, "test"),
        place=str(job.place),
        cpu_seconds=run.budget.cpu_seconds if timed(run) else None,
        share=run.budget.share,
        curve=bench.grid.curve,
        device=bench.device,
        threads=threads,
    )


def _record(job: Job, answer: Answer) -> Record:
    """The line of the journal: what was asked for, as typed, with its counts, and the facts."""
    facts = dict(answer.facts)
    config = job.run.config.model_dump(mode="json")
    counts: Mapping[str, int | None] = facts.pop("counts", {})
    if counts:
        config["images"], config["turn"] = counts["images"], counts["turn"]
        config["training"]["steps"] = counts["steps"]
        if counts.get("batch_size") is not None:  # a budget may make batches smaller
            config["options"]["batch_size"] = counts["batch_size"]
    return {
        **facts,
        "key": job.key,
        "status": answer.status,
        "reason": answer.reason,
        "cell": asdict(job.run.cell),
        "config": config,
        "budget": job.run.budget.model_dump(mode="json", exclude_defaults=True),
        "sidecar": {
            "digest": job.teacher.digest,
            "bytes": job.teacher.size,
            "repo_id": job.teacher.repo_id,
            "commit": job.teacher.commit,
        },
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _line(run: Run, record: Record) -> str:
    found = record.get("result")
    if not found:
        return f"{run.cell}: {record['status']}: {record['reason']}"
    costs = costs_of(record)
    seconds = sum(found[costs.seconds].values())
    return f"{run.cell}: {100 * found['accuracy']:.2f} % in {seconds:.0f} {costs.device} s"


def duration(seconds: float) -> str:
    """E.g. ``40 s``, ``12 min``, ``3.5 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
