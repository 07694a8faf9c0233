"""The two founding experiments run, and their parts do what they say."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from tests.support.small_recipes import write_blobs

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_blobs(tmp_path_factory.mktemp("blobs"))


def run(name: str, *arguments: str) -> list[str]:
    command = [sys.executable, "-W", "error", str(EXAMPLES / name), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_hinton_on_mnist(data: Path) -> None:
    lines = run("hinton_mnist.py", "--data", str(data), "--steps", "60", "--width", "0.05")
    assert [line.split("  ")[0] for line in lines] == [
        "teacher, 1200-1200, regularized",
        "student, 800-800, labels",
        "student, 800-800, labels and teacher",
    ]
    assert all("errors of 240" in line for line in lines)
    for line in lines[1:]:
        assert float(line.split("(")[1].split(" %")[0]) > 90


def test_the_omitted_digit(data: Path) -> None:
    lines = run(
        "omitted_digit.py", "--data", str(data), "--digit", "2",
        "--steps", "40", "--student-steps", "30", "--width", "0.05",
    )  # fmt: skip
    assert lines[0].startswith("of 160 training images without a 2, the teacher calls")
    assert lines[2].startswith("student")
    assert "of them on the 80 images of 2" in lines[2]
    table = lines[lines.index("") + 1 :]
    assert table[0].split() == ["true", "0", "1", "2", "right"]
    counts = [row.replace(".  ", "0  ").split()[1:4] for row in table[1:4]]
    assert all(sum(map(int, row)) == 80 for row in counts)


def loaded(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("wanted", [1, 5, 39])
def test_the_offset_makes_exactly_that_many_answers(
    wanted: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    example = loaded("omitted_digit", monkeypatch)
    logits = torch.randn(40, 5, generator=torch.Generator().manual_seed(0))
    offset = example.matching_offset(logits, 3, wanted)
    called = example.raised(logits, 3, offset).argmax(1) == 3
    assert int(called.sum()) == wanted
    assert example.matching_offset(logits, 3, 0) == 0.0
