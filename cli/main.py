"""The ``dfkd-meta`` command: registers one function per verb, and nothing else.

Verb modules import the library inside their function, so that ``validate`` never loads torch and
``--help`` loads nothing.
"""

from __future__ import annotations

import importlib

import typer

VERBS = [
    "demo",
    "train",
    "export",
    "validate",
    "inspect",
    "layers",
    "publish",
    "pull",
    "distill",
    "evaluate",
    "migrate",
    "schema",
    "list",
]

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
    """Entry point of the ``dfkd-meta`` command."""
    app()
