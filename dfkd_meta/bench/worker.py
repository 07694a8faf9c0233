"""One task in a process of its own: ``python -m dfkd_meta.bench.worker TASK ANSWER``.

A process per run makes CPU time and peak memory its own, and a crash costs one run. The process
ends when its parent does, however that ends: it holds a pipe whose other end the parent keeps.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

from dfkd_meta.bench.journal import write_text
from dfkd_meta.bench.measure import run_cell
from dfkd_meta.bench.places import Places
from dfkd_meta.bench.tasks import Answer, CellTask, Task, TeacherTask
from dfkd_meta.bench.teachers import Teachers
from dfkd_meta.errors import DfkdMetaError, MethodError
from dfkd_meta.progress import Silent


def main(task_file: Path, answer_file: Path) -> None:
    """Do the task and write the answer; what is no refusal of ours ends in a traceback."""
    _end_with_parent()
    task = Task.model_validate_json(task_file.read_text(encoding="utf-8")).task
    try:
        answer = _answer(task)
    except MethodError as error:  # what a method refuses it refuses every time
        answer = Answer(status="refused", reason=error.message)
    except DfkdMetaError as error:  # a missing file may be there next time
        where = f" ({error.where})" if error.where else ""
        hint = f" - {error.hint}" if error.hint else ""
        reason = error.message + where + hint
        answer = Answer(status="failed", reason=reason, exit_code=error.exit_code)
    write_text(answer_file, answer.model_dump_json())


def _answer(task: TeacherTask | CellTask) -> Answer:
    import torch

    torch.set_num_threads(task.threads)
    device = torch.device(task.device)
    if isinstance(task, CellTask):
        return Answer(status="done", facts=run_cell(task, device))
    places = Places(Path(task.folder), os.environ)
    teachers = Teachers(task.grid, Path(task.out), places)
    teachers.make(task.name, task.profile, device=device, progress=Silent())
    return Answer(status="done")


def _end_with_parent() -> None:
    def watch() -> None:
        os.read(0, 1)  # returns when the parent's end of the pipe is closed
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
