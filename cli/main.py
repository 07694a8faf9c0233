"""The ``dfkd-meta`` command: registers one function per verb, and nothing else.

Verb modules import the library inside their function, so that ``validate`` never loads torch and
``--help`` loads nothing.
"""

from __future__ import annotations

import importlib
import os
import sys
from io import TextIOWrapper
from typing import NoReturn

import typer

VERBS = [
    "demo",
    "train",
    "export",
    "validate",
    "inspect",
    "redact",
    "layers",
    "publish",
    "pull",
    "distill",
    "evaluate",
    "bench",
    "migrate",
    "schema",
    "list",
]

NOT_FOR_VALIDATION = ("torch", "safetensors", "huggingface_hub", "yaml")
NO_MEMORY = "there is not enough memory for this; smaller batches need less"

app = typer.Typer(
    name="dfkd-meta",
    help="Activation statistics beside a teacher, and students distilled from them without data.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _version(show: bool) -> None:
    if show:
        from importlib.metadata import version

        typer.echo(version("dfkd-meta"))
        raise typer.Exit()


@app.callback()
def root(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version and exit."
    ),
) -> None:
    """Activation statistics beside a teacher, and students distilled from them without data."""


for verb in VERBS:
    # ``list`` would shadow the built-in inside its module, so its function is ``list_``.
    module = importlib.import_module(
        f"dfkd_meta_cli.{verb}_" if verb == "list" else f"dfkd_meta_cli.{verb}"
    )
    app.command(verb)(module.command)


def main() -> None:
    """Entry point of the ``dfkd-meta`` command: what the machine refuses is said in one line."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the caller
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a path that the terminal's alphabet lacks
            stream.reconfigure(errors="backslashreplace")
    try:
        app()
    except MemoryError:
        _refused(NO_MEMORY)
    except RuntimeError as error:  # torch's own kinds of it, on CPUs and on GPUs
        if "can't allocate memory" in str(error) or type(error).__name__ == "OutOfMemoryError":
            _refused(NO_MEMORY)
        raise
    except ModuleNotFoundError as error:  # installed for validation alone
        missing = (error.name or "").partition(".")[0]
        if missing not in NOT_FOR_VALIDATION:
            raise
        _refused(f"{missing} is not installed; 'pip install dfkd-meta' brings what this verb needs")
    except OSError as error:  # a full disk, a closed output: nothing a library call could foresee
        _refused(f"the system refused: {error.strerror or error}")


def _refused(message: str) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(3)
