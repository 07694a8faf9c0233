"""``dfkd-meta publish``."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dfkd_meta_cli.options import AsJson, Quiet, Token
from dfkd_meta_cli.output import TerminalProgress, errors_as_text, print_json, print_line

if TYPE_CHECKING:
    from dfkd_meta.producer.publish import PublishResult


def command(
    folder: Annotated[Path, typer.Argument(help="Folder with the teacher and its sidecar.")],
    repo: Annotated[str, typer.Option(help="Repository on the Hub, as user/name.")],
    revision: Annotated[str, typer.Option(help="Branch; made if missing.")] = "main",
    private: Annotated[
        bool, typer.Option("--private", help="Make a new repository private.")
    ] = False,
    create_pr: Annotated[bool, typer.Option("--create-pr", help="Open a pull request.")] = False,
    token: Token = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be sent.")
    ] = False,
    json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Validate a teacher and its sidecar, describe them and upload both in one commit.

    Only files that differ are sent; the folder is not changed. The model card gets a section
    of its own, everything else in it stays.

    Example: dfkd-meta publish out/teacher --repo user/lenet5-mnist --dry-run
    """
    with errors_as_text():
        from dfkd_meta.hub import hide_bars
        from dfkd_meta.producer.publish import PublishOptions, publish

        if quiet or json or not sys.stderr.isatty():
            hide_bars()
        result = publish(
            folder,
            repo,
            options=PublishOptions(
                revision=revision, private=private, create_pr=create_pr, dry_run=dry_run
            ),
            token=token,
            progress=TerminalProgress(quiet=quiet or json),
        )
        if json:
            _report_json(result, dry_run)
        else:
            _report(result, dry_run)


def _report_json(result: PublishResult, dry_run: bool) -> None:
    facts = asdict(result) | {"dry_run": dry_run}
    facts["uploaded"] = [{"path": path, "size": size} for path, size in result.uploaded]
    print_json(facts)


def _report(result: PublishResult, dry_run: bool) -> None:
    verb = "would send" if dry_run else "sent"
    for path, size in result.uploaded:
        print_line(f"{verb:<10}  {path}  {size:,} bytes")
    for path in result.unchanged:
        print_line(f"unchanged   {path}")
    if dry_run:
        print_line("dry run: nothing was sent")
    elif result.commit is None:
        print_line(f"nothing to commit: {result.url} is up to date")
    else:
        print_line(f"commit {result.commit}")
        print_line(result.url)
