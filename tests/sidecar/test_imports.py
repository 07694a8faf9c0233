"""The standard stays light: no torch, no hub client, no plotting."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CASE = Path(__file__).parents[2] / "schema" / "v1.0" / "cases" / "valid" / "full"
HEAVY = (
    "torch",
    "huggingface_hub",
    "safetensors",
    "yaml",
    "sklearn",
    "matplotlib",
    "transformers",
    "timm",
    "PIL",
)
COMMANDS = {
    "validate": ["validate", str(CASE)],
    "inspect": ["inspect", str(CASE)],
    "schema": ["schema"],
    "migrate": ["migrate", str(CASE), "--dry-run"],
    "redact": ["redact", str(CASE), "--only", "*", "--out", "unused", "--dry-run"],
    "help": ["--help"],
}


def run(code: str, *arguments: str) -> str:
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


def test_the_library_imports_nothing_heavy() -> None:
    code = f"import sys, dfkd_meta.sidecar; print([m for m in {HEAVY} if m in sys.modules])"
    assert run(code) == "[]"


def test_a_manifest_is_read_without_numpy() -> None:
    code = (
        "import sys; from pathlib import Path; from dfkd_meta.sidecar import read_manifest\n"
        f"read_manifest(Path({str(CASE)!r})); print('numpy' in sys.modules)"
    )
    assert run(code) == "False"


@pytest.mark.parametrize("verb", COMMANDS)
def test_the_verbs_import_nothing_heavy(verb: str) -> None:
    code = (
        "import sys\n"
        "from dfkd_meta_cli.main import app\n"
        "app(sys.argv[1:], standalone_mode=False)\n"
        f"print([m for m in {HEAVY} if m in sys.modules])"
    )
    assert run(code, *COMMANDS[verb]) == "[]"
