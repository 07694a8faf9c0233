"""What the command does when the machine or the user stops it."""

from __future__ import annotations

import signal
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from dfkd_meta_cli import main as main_module

COMMAND = [sys.executable, "-m", "dfkd_meta_cli"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_one_line() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*COMMAND, "list", "losses"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 3
    assert done.stderr.startswith("error: the system refused")
    assert len(done.stderr.splitlines()) == 1


def test_the_version_is_that_of_the_package() -> None:
    shown = CliRunner().invoke(main_module.app, ["--version"])
    assert (shown.exit_code, shown.stdout) == (0, version("dfkd-meta") + "\n")


def test_a_demo_has_nothing_to_overwrite_without_a_folder() -> None:
    refused = CliRunner().invoke(main_module.app, ["demo", "--overwrite"])
    assert refused.exit_code == 2
    assert "--out" in refused.stderr


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ],
)
def test_too_little_memory_is_one_line(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def app() -> None:
        raise error

    monkeypatch.setattr(main_module, "app", app)
    with pytest.raises(SystemExit) as caught:
        main_module.main()
    assert caught.value.code == 3
    assert capsys.readouterr().err.startswith("error: there is not enough memory for this")


def test_an_installation_for_validation_alone_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def app(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(main_module, "app", lambda: app("torch.nn"))
    with pytest.raises(SystemExit) as stopped:
        main_module.main()
    assert stopped.value.code == 3
    assert "torch is not installed" in capsys.readouterr().err
    monkeypatch.setattr(main_module, "app", lambda: app("a_user_module"))
    with pytest.raises(ModuleNotFoundError):
        main_module.main()


def test_another_error_of_torch_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def app() -> None:
        raise RuntimeError("shapes cannot be multiplied")

    monkeypatch.setattr(main_module, "app", app)
    with pytest.raises(RuntimeError, match="shapes"):
        main_module.main()


def test_a_closed_output_is_no_crash() -> None:
    command = f"{sys.executable} -m dfkd_meta_cli list losses >&-"
    done = subprocess.run(["sh", "-c", command], stderr=subprocess.PIPE, text=True, check=False)
    assert done.stderr == ""
    assert done.returncode == 0


def test_an_interrupt_leaves_nothing_behind(tmp_path: Path) -> None:
    pytest.importorskip("sklearn", reason="needs scikit-learn (extra [data])")
    out = tmp_path / "teacher"
    training = ["train", "digits_cnn", "--data", "digits", "--out", str(out)]
    with subprocess.Popen(
        [*COMMAND, *training],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A suite run in the background inherits an ignored SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert process.stderr is not None
        assert "training" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
        code = process.wait(timeout=60)
    # A library that starts up may let the signal end the process: a shell calls that 130 as well.
    assert code in (130, -signal.SIGINT), rest
    assert "Traceback" not in rest
    assert list(tmp_path.iterdir()) == []
