"""Where text goes: results to stdout, talk to stderr; ``--json`` prints the same facts as data.

rich is imported where something is drawn, so that a plain answer does not wait for it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from dfkd_meta.errors import DfkdMetaError

if TYPE_CHECKING:
    from rich.console import Console

T = TypeVar("T")


def stdout() -> Console:
    """A console on stdout; wide when piped, so that a pipe never wraps a row."""
    from rich.console import Console

    return Console(highlight=False, emoji=False, width=None if sys.stdout.isatty() else 200)


def stderr() -> Console:
    """A console on stderr."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, emoji=False)


def print_json(data: Any) -> None:
    """Print data as one JSON document on stdout (no NaN: it is not JSON)."""
    print(json.dumps(data, indent=2, allow_nan=False))


def print_line(text: str) -> None:
    """Print one plain line of result on stdout."""
    print(text)


def printable(text: str, limit: int = 2_000) -> str:
    """Text without control characters, which could steer a terminal, and of bounded length.

    Names in a sidecar or a config are those of a stranger.
    """
    cut = text if len(text) <= limit else text[:limit] + "..."
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in cut)


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table; a column whose last word is a unit (``%``, ``n``) is aligned right."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=title, title_justify="left", show_edge=False, pad_edge=False)
    for name in columns:
        numeric = name.split()[-1:] in (["%"], ["bytes"], ["seconds"], ["count"], ["n"])
        table.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(escape(printable(str(cell))) for cell in row))
    stdout().print(table)


@contextmanager
def errors_as_text() -> Iterator[None]:
    """Turn every refusal into three lines on stderr and its exit code; nothing else is caught."""
    try:
        yield
    except DfkdMetaError as error:
        from rich.markup import escape

        console = stderr()
        message = escape(printable(error.message))
        console.print(f"[bold red]error[/] {error.code}: {message}", soft_wrap=True)
        if error.where:
            console.print(f"  where: {escape(printable(error.where))}", soft_wrap=True)
        if error.hint:
            console.print(f"  hint:  {escape(printable(error.hint))}", soft_wrap=True)
        raise typer.Exit(error.exit_code) from error


class TerminalProgress:
    """Draws ``dfkd_meta.progress.Progress`` on stderr; bars only on a terminal.

    ``quiet`` leaves warnings alone.
    """

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet
        self.console = stderr()

    def step(self, message: str) -> None:
        if not self.quiet:
            from rich.markup import escape

            self.console.print(f"[cyan]>[/] {escape(printable(message))}", soft_wrap=True)

    def warn(self, message: str) -> None:
        from rich.markup import escape

        self.console.print(f"[bold yellow]WARNING:[/] {escape(printable(message))}", soft_wrap=True)

    def track(self, items: Iterable[T], *, total: int, what: str) -> Iterator[T]:
        from rich import progress as bars

        columns = (
            bars.TextColumn("  {task.description}"),
            bars.BarColumn(),
            bars.MofNCompleteColumn(),
            bars.TimeRemainingColumn(),
        )
        hidden = self.quiet or not self.console.is_terminal
        with bars.Progress(*columns, console=self.console, transient=True, disable=hidden) as bar:
            yield from bar.track(items, total=total, description=what)
