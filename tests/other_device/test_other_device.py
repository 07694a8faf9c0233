"""The tests of ``on_another_device.py``, in a process of their own.

torch counts the devices at the first backward pass of a process, and takes none that come later.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from torch.utils import backend_registration

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(
    not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"),
    reason="this version of torch takes no devices written in Python",
)
def test_on_another_device() -> None:
    file = Path(__file__).with_name("on_another_device.py")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout[-10_000:]
