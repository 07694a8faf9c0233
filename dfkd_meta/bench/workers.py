"""Worker processes: one task each, no more threads than cores, none left behind."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from dfkd_meta.bench.tasks import Answer, CellTask, Task, TeacherTask
from dfkd_meta.errors import UsageError

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
TASK, ANSWER, LOG = "task.json", "answer.json", "log.txt"


class Workers:
    """Does tasks in processes of their own; a context whose end ends them all.

    A worker is killed without ceremony: whatever it writes, it writes whole or not at all.
    """

    def __init__(self, threads: int, environment: Mapping[str, str]) -> None:
        self.environment = {**environment, **dict.fromkeys(THREAD_VARIABLES, str(threads))}
        self._alive: set[subprocess.Popen[bytes]] = set()
        self._stopped = False

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def do(self, task: TeacherTask | CellTask, place: Path) -> Answer:
        """Do one task, its files in the folder ``place``; waits for it. Any thread may call this.

        An answer that lies there already (the bench was killed before it wrote it down) is taken.
        """
        place.mkdir(parents=True, exist_ok=True)
        found = _answer_in(place)
        if found is None:
            (place / TASK).write_text(Task(task=task).model_dump_json(), encoding="utf-8")
            code = self._run(place)
            found = _answer_in(place) if code == 0 else None
            if found is None:
                return Answer(status="failed", reason=_last_words(place / LOG, code))
        if found.status == "failed":
            (place / ANSWER).unlink()  # so that it can be tried again
        return found

    def stop(self) -> None:
        """Kill what is under way; tasks that come later fail at once."""
        self._stopped = True
        for process in list(self._alive):
            process.kill()

    def _run(self, place: Path) -> int:
        command = [sys.executable, "-m", "dfkd_meta.bench.worker"]
        with (place / LOG).open("wb") as log:
            process = subprocess.Popen(  # noqa: S603
                [*command, str(place / TASK), str(place / ANSWER)],
                stdin=subprocess.PIPE,  # its end tells the worker that we are gone
                stdout=log,
                stderr=log,
                env=self.environment,
                start_new_session=True,  # an interrupt reaches us first, and we stop the workers
            )
            self._alive.add(process)
            if self._stopped:
                process.kill()
            with process:
                code = process.wait()
            self._alive.discard(process)
        return code


def threads_per_run(jobs: int, wanted: int | None) -> int:
    """Threads of each of ``jobs`` runs, ``wanted`` or an equal share of the cores.

    Raises UsageError when that is more than there are cores.
    """
    counted = getattr(os, "sched_getaffinity", None)
    cores = len(counted(0)) if counted else os.cpu_count() or 1
    threads = wanted or max(1, cores // jobs)
    if threads * jobs > cores:
        raise UsageError(
            f"{jobs} jobs of {threads} threads are more than the {cores} cores here",
            hint="fewer --jobs, or another 'threads' in the grid",
        )
    return threads


def _answer_in(place: Path) -> Answer | None:
    """The answer that lies there, if it can be read."""
    try:
        return Answer.model_validate_json((place / ANSWER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _last_words(log: Path, code: int) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
    return ": ".join([f"the process {how}", *lines[-1:]])
