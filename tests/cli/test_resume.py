"""``distill`` killed from outside and resumed: the student of an uninterrupted run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from safetensors.torch import load_file

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
