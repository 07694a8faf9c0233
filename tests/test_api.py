"""What a program imports from the package itself."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import dfkd_meta


def test_a_student_in_five_lines(published: Callable[[str, str], Path], tmp_path: Path) -> None:
    config = dfkd_meta.DistillConfig.model_validate({"training": {"steps": 3, "batch_size": 16}})
    run = dfkd_meta.distill(str(published("digits_cnn", "full")), config)
    dfkd_meta.save_run(run, str(tmp_path / "student"))
    student = dfkd_meta.open_model(tmp_path / "student")
    images = torch.rand(4, 1, 8, 8)
    logits = student(dfkd_meta.preprocess(images, student.inputs))
    assert logits.shape == (4, 3)


def test_every_name_is_there_and_nothing_else() -> None:
    assert all(callable(getattr(dfkd_meta, name)) for name in dfkd_meta.__all__)
    assert set(dfkd_meta.__all__) <= set(dir(dfkd_meta))
    assert dfkd_meta.__version__
    with pytest.raises(AttributeError, match="no attribute 'distil'"):
        dfkd_meta.distil  # noqa: B018


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = "import sys, dfkd_meta; dfkd_meta.__version__; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
