"""``distill`` killed from outside and resumed: the student of an uninterrupted run."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file
from typer.testing import CliRunner

from dfkd_meta.consumer import results
from dfkd_meta.distillation.training import Trainer
from dfkd_meta_cli.main import app

PATCHED = """
import dfkd_meta.consumer.interruption as interruption
interruption.SAVE_EVERY = 0.0
from dfkd_meta_cli.main import main
main()
"""


def arguments(teacher: Path, out: Path, *more: str) -> list[str]:
    return [
        sys.executable, "-c", PATCHED, "distill", str(teacher), "--out", str(out), "-q",
        "--method", "deep_inversion", "--set", "images=60", "--set", "options.batch_size=20",
        "--set", "options.steps=5", "--set", "training.steps=150",
        "--set", "training.batch_size=16", *more,
    ]  # fmt: skip


def test_a_killed_distillation_goes_on(
    published: Callable[[str, str], Path], tmp_path: Path
) -> None:
    teacher = published("digits_cnn", "full")
    subprocess.run(arguments(teacher, tmp_path / "whole"), check=True)
    out = tmp_path / "cut"
    unfinished = tmp_path / "cut.unfinished"
    process = subprocess.Popen(arguments(teacher, out))
    deadline = time.monotonic() + 120
    while not unfinished.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not out.exists()
    subprocess.run(arguments(teacher, out, "--resume"), check=True)
    assert not unfinished.exists()
    whole = load_file(tmp_path / "whole" / "model.safetensors")
    again = load_file(out / "model.safetensors")
    assert all(whole[key].equal(again[key]) for key in whole)


def test_a_student_that_could_not_be_saved_is_not_lost(
    published: Callable[[str, str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(*where: object, **facts: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    call = arguments(published("digits_cnn", "full"), tmp_path / "student")[3:]
    with monkeypatch.context() as patched:
        patched.setattr(results, "save_model", full_disk)
        result = CliRunner().invoke(app, call)
    assert result.exit_code == 1
    assert "No space left" in result.stderr
    unfinished = tmp_path / "student.unfinished"
    assert unfinished.exists()
    monkeypatch.setattr(Trainer, "step", None)  # not one more step
    assert CliRunner().invoke(app, [*call, "--resume"]).exit_code == 0
    assert (tmp_path / "student" / "model.safetensors").exists()
    assert not unfinished.exists()


def test_what_can_go_on_is_not_started_over_unasked(
    published: Callable[[str, str], Path], tmp_path: Path
) -> None:
    call = arguments(published("digits_cnn", "full"), tmp_path / "student")[3:]
    waiting = tmp_path / "student.unfinished"
    waiting.write_bytes(b"something")
    refused = CliRunner().invoke(app, call)
    assert refused.exit_code == 2
    assert "--resume goes on with it" in refused.stderr
    assert waiting.read_bytes() == b"something"
    assert CliRunner().invoke(app, [*call, "--overwrite"]).exit_code == 0
    assert not waiting.exists()
    again = CliRunner().invoke(app, [*call, "--resume"])
    assert again.exit_code == 2
    assert "this run is finished" in again.stderr


@pytest.mark.parametrize("saved", [True, False])
def test_an_interrupt_says_where_the_run_waits(
    published: Callable[[str, str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    saved: bool,
) -> None:
    def interrupted(*where: object, **facts: object) -> None:
        if saved:
            (tmp_path / "student.unfinished").write_bytes(b"")
        raise KeyboardInterrupt

    monkeypatch.setattr("dfkd_meta.consumer.distill.distill", interrupted)
    call = arguments(published("digits_cnn", "full"), tmp_path / "student")[3:]
    call.remove("-q")
    result = CliRunner().invoke(app, call)
    assert result.exit_code == 130
    assert ("--resume" if saved else "nothing was saved yet") in result.stderr
