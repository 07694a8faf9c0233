"""The example that measures an export must run; what it measures is nobody's assertion."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest
import torch

from dfkd_meta.producer.export import export
from tests.producer.toys import builtin, config, data

EXAMPLE = Path(__file__).parents[2] / "examples" / "export_cost.py"


def test_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import numpy as np

    export(builtin(), data(), config("minimal"), tmp_path / "out")
    dataset = data()
    np.savez(tmp_path / "data.npz", images=dataset.read(range(120)).numpy(), labels=dataset.labels)
    threads = torch.get_num_threads()
    arguments = [str(EXAMPLE), str(tmp_path / "out"), str(tmp_path / "data.npz")]
    monkeypatch.setattr(sys, "argv", [*arguments, "--profile", "full", "--limit", "100"])
    try:
        runpy.run_path(str(EXAMPLE), run_name="__main__")
    finally:
        torch.set_num_threads(threads)
    printed = capsys.readouterr().out.split()
    assert printed[0] == "full"
    assert float(printed[-1]) > 0
